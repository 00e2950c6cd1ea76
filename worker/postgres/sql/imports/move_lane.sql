UPDATE lane SET chain_sequence = $2, chain_hash = $3, next_offset = $2 WHERE id = $1
