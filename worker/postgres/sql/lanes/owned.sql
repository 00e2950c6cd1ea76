-- Whether the lane is still its owner's: only then does what its row said when it was taken still hold.
SELECT true FROM lane WHERE id = $1 AND owner = $2
