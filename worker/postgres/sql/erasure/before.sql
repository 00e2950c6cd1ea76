-- The erasure of a contact before this one.
SELECT erased_at, places FROM erasure WHERE organisation = $1 AND contact = $2
