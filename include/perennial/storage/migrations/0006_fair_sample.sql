-- Right answers that are kept only so that the holdout is a fair sample of production (source 'sample') call for no training and are
-- bounded by the holdout, not by the buffer's limit.
CREATE OR REPLACE VIEW perennial.waiting AS
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples
WHERE state = 'raw' AND source <> 'sample'
UNION ALL
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples
WHERE state = 'ready' AND NOT holdout
UNION ALL
SELECT example_id, id, agent, priority, importance, uncertainty, created_at, correction FROM perennial.examples
WHERE state = 'ready' AND holdout AND job_id IS NULL AND source <> 'sample';
