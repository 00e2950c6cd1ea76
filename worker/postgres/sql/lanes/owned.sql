-- One row if the lane is still its owner's: only then is its row as it was when it was taken.
SELECT true FROM lane WHERE id = $1 AND owner = $2
