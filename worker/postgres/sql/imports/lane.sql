-- The last event of imports that is published, and the last that is written.
SELECT id, first_offset AS published, next_offset AS written FROM lane WHERE cluster = '' AND topic = 'import'
