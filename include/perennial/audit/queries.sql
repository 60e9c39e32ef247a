-- name: append
SELECT perennial.append_audit(%(actor)s, %(action)s, %(agent)s, %(subject)s, %(detail)s)
-- name: entries
SELECT id, at, actor, action, agent, subject, detail FROM perennial.audit
WHERE %(agent)s::text IS NULL OR agent = %(agent)s::text
ORDER BY id DESC LIMIT %(limit)s
-- name: has
-- The index audit_by_subject finds it, wherever it lies in the log.
SELECT id FROM perennial.audit
WHERE agent = %(agent)s AND left(subject, 128) = left(%(subject)s, 128) AND subject = %(subject)s
  AND action = ANY (%(actions)s::text[]) AND (%(actor)s::text IS NULL OR actor = %(actor)s::text) AND detail @> %(detail)s
ORDER BY id DESC LIMIT 1
-- name: seal
SELECT batch, first_id, last_id, count, total, sealed_at, digest, previous, hash FROM perennial.seal_audit(%(most)s)
-- name: seals
SELECT batch, first_id, last_id, count, total, sealed_at, digest, previous, hash FROM perennial.audit_batches
WHERE batch > %(after)s ORDER BY batch LIMIT %(limit)s
-- name: one_view
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY
-- name: plain_bytes
SET LOCAL client_encoding = 'UTF8'
-- name: export_view
SELECT pg_catalog.pg_export_snapshot() AS view
-- name: import_view
SET TRANSACTION SNAPSHOT {view}
-- name: shape
-- What the tables are, from the catalogue. All columns in their order; other columns would not be in the hashes.
SELECT c.relname::text AS name, c.relkind::text AS kind,
       (SELECT pg_catalog.array_agg(a.attname::text || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                                    || CASE WHEN a.attnotnull THEN '' ELSE ' null' END ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT coalesce(pg_catalog.array_agg(t.tgname::text || CASE WHEN t.tgenabled = 'O' THEN '' ELSE ' off' END
                                             || ' ' || p.proname::text ORDER BY t.tgname), '{}')
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS triggers,
       c.relhasrules OR c.relrowsecurity OR c.relhassubclass AS bent
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'perennial' AND c.relname IN ('audit', 'audit_batches', 'audit_unsealed')
-- name: rows
COPY (SELECT id, at, actor, action, agent, subject, detail FROM perennial.audit ORDER BY id) TO STDOUT (FORMAT BINARY)
-- name: batches
SELECT batch, first_id, last_id, count, total, sealed_at, digest, previous, hash, members FROM perennial.audit_batches ORDER BY batch
-- name: waiting
SELECT id, at, content FROM perennial.audit_unsealed ORDER BY id
