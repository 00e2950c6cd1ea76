-- The groups that have decided commands of these topics ($2), if the group $1 has decided none.
SELECT DISTINCT consumer_group AS name
FROM lane
WHERE topic = ANY ($2) AND first_offset IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM lane AS own
        WHERE own.consumer_group = $1 AND own.topic = ANY ($2) AND own.first_offset IS NOT NULL
    )
ORDER BY name
