-- Imports write one after another, as the events of one writer must.
SELECT id, chain_sequence, chain_hash FROM lane WHERE cluster = '' AND topic = 'import' FOR UPDATE
