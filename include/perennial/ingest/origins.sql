-- name: origins
SELECT e.example_id, e.source AS kind, e.source_id, e.reason = 'released' AS released,
       perennial.self_labelled(e.source, e.expected_output, e.predicted_output) AS self_labelled,
       coalesce((SELECT min(s.first_seen) FROM perennial.sources s WHERE s.agent = e.agent AND s.source_id = e.source_id),
                e.added_at) AS first_seen
FROM perennial.examples e WHERE e.example_id = ANY (%(ids)s)
-- name: recall
-- Rows that wait for their source's share join a claim: per task and source as many as the share leaves room for, the oldest first,
-- and of all sources together a share `most`. Looks at the oldest 10,000 such rows at most.
WITH claim AS (
    SELECT task, source_id, count(*) AS n FROM perennial.examples
    WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND state = 'claimed' GROUP BY task, source_id
), sizes AS (
    SELECT task, sum(n) AS n FROM claim GROUP BY task
), oldest AS (
    SELECT example_id, id, task, source_id FROM perennial.examples
    WHERE agent = %(agent)s AND state = 'held' AND reason = 'source_cap' ORDER BY id LIMIT 10000
), placed AS (
    SELECT o.*, row_number() OVER (PARTITION BY task, source_id ORDER BY id) AS place FROM oldest o
), fitting AS (
    SELECT p.example_id, s.n, row_number() OVER (PARTITION BY p.task ORDER BY p.place, p.id) AS turn
    FROM placed p JOIN sizes s USING (task) LEFT JOIN claim c USING (task, source_id)
    WHERE p.place + coalesce(c.n, 0) <= floor(s.n * %(share)s::numeric)
)
UPDATE perennial.examples e SET state = 'claimed', reason = '', job_id = %(job_id)s, attempt = %(attempt)s
FROM fitting f
WHERE e.example_id = f.example_id AND f.turn <= floor(f.n * %(most)s::numeric) AND e.state = 'held' AND e.superseded_by IS NULL
-- name: held
SELECT task, source_id, CASE WHEN reason = ANY (%(words)s) THEN reason ELSE %(refused)s END AS reason, count(*) AS rows
FROM perennial.examples WHERE agent = %(agent)s AND state = 'held'
GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC, 3, 2
