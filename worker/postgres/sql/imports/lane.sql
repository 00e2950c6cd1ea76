-- How far the events of imports are published, and how far they are written.
SELECT id, first_offset AS published, next_offset AS written FROM lane WHERE cluster = '' AND topic = 'import'
