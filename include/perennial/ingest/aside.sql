-- name: release_held
-- 'released' tells the screening of the next batch that a person let these rows through.
UPDATE perennial.examples SET state = 'ready', refusals = 0, reason = 'released', job_id = NULL, attempt = NULL
WHERE agent = %(agent)s AND state = 'held' AND reason <> 'new_label_waiting'
-- name: drop_held
-- Evicted rather than deleted: nothing that was acknowledged disappears from the books.
UPDATE perennial.examples SET state = 'evicted', reason = 'dropped by ' || %(actor)s
WHERE agent = %(agent)s AND state = 'held' AND reason <> 'new_label_waiting'
