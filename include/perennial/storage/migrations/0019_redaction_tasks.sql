-- What the detectors of personal data are not sure of, for a person to look at; which texts hold nothing; which rows an older redactor made.

-- One row per agent and text. The words are out of the text that is trained on already: deciding late costs quality, never privacy.
-- `doubts` holds each word between pieces of redacted text, only while the task is open; `words` and `cleared` are keyed digests.
CREATE TABLE perennial.redaction_tasks (
    number      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    agent       text NOT NULL,
    text_key    bytea NOT NULL,               -- keyed digest of the original
    task        text NOT NULL,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'confirmed', 'restored', 'dropped', 'closed')),
    round       integer NOT NULL DEFAULT 1,   -- the fence: a decision names the round that the person saw
    kinds       jsonb NOT NULL,               -- counts by kind
    doubts      jsonb NOT NULL,
    words       text[] NOT NULL,              -- all that were ever asked about
    cleared     text[] NOT NULL DEFAULT '{}', -- those of them that may stand
    example_ids uuid[] NOT NULL,
    version     text NOT NULL,                -- the redactor that asked
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at  timestamptz,
    PRIMARY KEY (agent, text_key),
    CHECK (state = 'open' OR doubts = '[]')
);
CREATE INDEX redaction_tasks_open ON perennial.redaction_tasks (agent, number) WHERE state = 'open';
CREATE INDEX redaction_tasks_age ON perennial.redaction_tasks (opened_at) WHERE state = 'open';
CREATE INDEX redaction_tasks_cleared ON perennial.redaction_tasks (agent, number) WHERE cleared <> '{}';
CREATE INDEX redaction_tasks_of_example ON perennial.redaction_tasks USING gin (example_ids) WHERE state = 'open';
-- Whether a find makes the task a new question: a word that was never asked about, or a new row of a text that nobody decided to keep.
CREATE FUNCTION perennial.asks_again(known perennial.redaction_tasks, asked text[], example uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT known.words @> asked OR (known.state IN ('dropped', 'closed') AND NOT example = ANY (known.example_ids))
$$;
-- Only admission, which reads originals, opens a task; a person's decision is the app role's to write.
GRANT SELECT, INSERT, UPDATE ON perennial.redaction_tasks TO perennial_admit;
GRANT SELECT, UPDATE (state, doubts, cleared, decided_at) ON perennial.redaction_tasks TO perennial_app;

-- Texts in which a version of the redactor found nothing, by keyed digest: no text, no example, no agent.
CREATE TABLE perennial.scanned_texts (
    version text NOT NULL,
    key     bytea NOT NULL,
    used_at date NOT NULL DEFAULT current_date,
    PRIMARY KEY (version, key)
);
CREATE INDEX scanned_texts_used ON perennial.scanned_texts (used_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON perennial.scanned_texts TO perennial_app, perennial_admit;

-- Rows that another version of the redactor made are two ranges of these, found without reading the rest.
CREATE INDEX examples_redactor ON perennial.examples (agent, (redaction ->> 'version'), id)
    WHERE admitted_at IS NOT NULL AND state IN ('ready', 'held', 'unlabelled');
CREATE INDEX examples_redactor_trained ON perennial.examples (agent, (redaction ->> 'version'), id)
    WHERE admitted_at IS NOT NULL AND state = 'trained';
