-- name: known
SELECT key FROM perennial.scanned_texts WHERE version = %(version)s AND key = ANY (%(keys)s)
-- name: touch
-- Once a day per text, so that what nobody asks for can be told apart and removed.
UPDATE perennial.scanned_texts SET used_at = current_date
WHERE version = %(version)s AND key = ANY (%(keys)s) AND used_at < current_date
-- name: remember
-- Not beyond a bound, as the planner's estimate has it: a full cache costs a look, a full disk costs more.
INSERT INTO perennial.scanned_texts (version, key)
SELECT %(version)s, k FROM unnest(%(keys)s::bytea[]) AS given (k)
WHERE (SELECT reltuples FROM pg_catalog.pg_class WHERE oid = 'perennial.scanned_texts'::regclass) < %(most)s
ORDER BY k ON CONFLICT DO NOTHING
