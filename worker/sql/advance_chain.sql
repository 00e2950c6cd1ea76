UPDATE lane SET chain_sequence = $2, chain_hash = $3 WHERE id = $1
