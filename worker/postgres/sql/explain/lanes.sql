-- The offsets up to which the lanes of a partition have decided.
SELECT consumer_group, first_offset, next_offset FROM lane WHERE cluster = $1 AND topic = $2 AND partition = $3
