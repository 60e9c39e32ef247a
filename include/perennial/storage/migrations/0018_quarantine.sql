-- The Quarantine page lists and counts what stands aside by agent, state, task and reason, newest first, without reading the rest.
-- A reason's word is what stands before its first colon: "held: slices: ..." and "examiner_failed:ValueError" name a case after it.
-- An id in the index makes the next page a seek; `examples_aside` served (agent, state), which is still its beginning.
DROP INDEX perennial.examples_aside;
CREATE INDEX examples_aside ON perennial.examples (agent, state, task, split_part(reason, ':', 1), id)
    WHERE state IN ('quarantined', 'held', 'unlabelled');
CREATE INDEX examples_aside_newest ON perennial.examples (agent, id) WHERE state IN ('quarantined', 'held', 'unlabelled');
-- What validation said of an agent's last jobs.
CREATE INDEX validations_by_agent ON perennial.validations (agent, id DESC);
