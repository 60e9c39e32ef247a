-- Looks that are made often read what they ask for and nothing else.

-- "Is this written already?", of one subject: asked at every claim, release and promotion, and each minute about each rollout that was
-- just reverted. The beginning of a subject is enough to find it, and a subject may be longer than an entry of an index can be.
CREATE INDEX audit_by_subject ON perennial.audit (agent, left(subject, 128), id DESC);

-- "When did the last row of this agent come in?", each minute for every agent. What it replaces found the newest pages and read each of
-- their rows.
CREATE INDEX examples_newest ON perennial.examples (agent, added_at);
DROP INDEX perennial.examples_added;
