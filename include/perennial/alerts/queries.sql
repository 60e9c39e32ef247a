-- name: raise
-- A cause that stands already keeps its row; its words follow what is true now.
INSERT INTO perennial.alerts (kind, agent, cause, text) VALUES (%(kind)s, %(agent)s, %(cause)s, %(text)s)
ON CONFLICT (kind, cause) WHERE cleared_at IS NULL DO UPDATE SET text = excluded.text
-- name: clear
UPDATE perennial.alerts SET cleared_at = clock_timestamp()
WHERE cleared_at IS NULL AND NOT (kind || ':' || cause) = ANY (%(standing)s)
  AND NOT EXISTS (SELECT FROM unnest(%(blind)s::text[]) b WHERE starts_with(kind || ':' || cause || ':', b))
-- name: undelivered
SELECT id, kind, agent, cause, text, raised_at, delivered_at, cleared_at FROM perennial.alerts
WHERE delivered_at IS NULL ORDER BY id LIMIT %(limit)s
-- name: delivered
UPDATE perennial.alerts SET delivered_at = clock_timestamp() WHERE id = %(id)s AND delivered_at IS NULL
-- name: recent
SELECT id, kind, agent, cause, text, raised_at, delivered_at, cleared_at FROM perennial.alerts
WHERE cleared_at IS NULL OR %(all)s ORDER BY cleared_at IS NOT NULL, id DESC LIMIT %(limit)s
-- name: note_check
INSERT INTO perennial.checks (name, ok, text) VALUES (%(name)s, %(ok)s, %(text)s)
ON CONFLICT (name) DO UPDATE SET ok = excluded.ok, text = excluded.text, at = clock_timestamp()
-- name: check
SELECT name, ok, text, extract(epoch FROM clock_timestamp() - at)::float8 AS age FROM perennial.checks WHERE name = %(name)s
