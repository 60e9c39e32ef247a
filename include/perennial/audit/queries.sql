-- name: append
INSERT INTO perennial.audit (actor, action, agent, subject, detail)
VALUES (%(actor)s, %(action)s, %(agent)s, %(subject)s, %(detail)s)
-- name: entries
SELECT id, at, actor, action, agent, subject, detail FROM perennial.audit
WHERE %(agent)s::text IS NULL OR agent = %(agent)s::text
ORDER BY id DESC LIMIT %(limit)s
