-- name: get
SELECT key, vector FROM perennial.embeddings WHERE encoder = %(encoder)s AND key = ANY (%(keys)s)
-- name: touch
-- Once a day per vector, so that what nobody uses can be told apart and removed.
UPDATE perennial.embeddings SET used_at = current_date
WHERE encoder = %(encoder)s AND key = ANY (%(keys)s) AND used_at < current_date
-- name: put
INSERT INTO perennial.embeddings (encoder, key, vector)
SELECT %(encoder)s, k, v FROM unnest(%(keys)s::text[], %(vectors)s::bytea[]) AS given (k, v) ORDER BY k
ON CONFLICT DO NOTHING
-- name: forget
DELETE FROM perennial.embeddings WHERE used_at < %(before)s
