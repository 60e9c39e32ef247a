-- Looks that are made often read what they ask for and nothing else.

-- "Is this written already?", of one subject: asked at every claim, release and promotion, and each minute about each rollout that was
-- just reverted. The beginning of a subject is enough to find it, and a subject may be longer than an entry of an index can be.
CREATE INDEX audit_by_subject ON perennial.audit (agent, left(subject, 128), id DESC);
