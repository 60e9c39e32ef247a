-- The Quarantine page lists and counts what stands aside by agent, state, task and reason, newest first, without reading the rest.

-- The word of a reason is what stands before its first colon: "held: slices: ..." and "examiner_failed:ValueError" name a case after it.
-- NULL for rows that do not stand aside, which keeps them out of the indexes below; a column and no expression, so that groups are counted
-- from the index alone. Adding it writes the table anew once.
ALTER TABLE perennial.examples ADD COLUMN aside text GENERATED ALWAYS AS (
    CASE WHEN state IN ('quarantined', 'held', 'unlabelled') THEN left(split_part(reason, ':', 1), 64) END) STORED;
CREATE INDEX examples_aside_groups ON perennial.examples (agent, state, task, aside, id) WHERE aside IS NOT NULL;
CREATE INDEX examples_aside_newest ON perennial.examples (agent, id) WHERE aside IS NOT NULL;

-- What validation said of an agent's last jobs.
CREATE INDEX validations_by_agent ON perennial.validations (agent, id DESC);
