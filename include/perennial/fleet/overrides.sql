-- name: set
INSERT INTO perennial.agent_overrides (agent, key, value, actor, reason, until)
VALUES (%(agent)s, %(key)s, %(value)s, %(actor)s, %(reason)s, clock_timestamp() + make_interval(secs => %(seconds)s))
RETURNING id, agent, key, value, actor, reason, set_at, until
-- name: unset
-- only what holds is ended, so that a repeat writes nothing
INSERT INTO perennial.agent_overrides (agent, key, value, actor, reason, until)
SELECT %(agent)s, %(key)s, NULL, %(actor)s, %(reason)s, clock_timestamp()
FROM (
    SELECT value, until FROM perennial.agent_overrides WHERE agent = %(agent)s AND key = %(key)s ORDER BY id DESC LIMIT 1
) AS last
WHERE last.value IS NOT NULL AND last.until > clock_timestamp()
-- name: active
SELECT id, agent, key, value, actor, reason, set_at, until FROM (
    SELECT DISTINCT ON (agent, key) * FROM perennial.agent_overrides
    WHERE %(agent)s::text IS NULL OR agent = %(agent)s
    ORDER BY agent, key, id DESC
) AS last
WHERE value IS NOT NULL AND until > clock_timestamp()
ORDER BY agent, key
-- name: history
SELECT id, agent, key, value, actor, reason, set_at, until FROM perennial.agent_overrides
WHERE agent = %(agent)s ORDER BY id DESC LIMIT %(limit)s
