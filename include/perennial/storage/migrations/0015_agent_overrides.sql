-- Settings of an agent that a person set for a while: who, why, until when on this clock. Never changed, never deleted.

CREATE TABLE perennial.agent_overrides (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent  text NOT NULL,
    key    text NOT NULL,                 -- dotted name of the setting, such as gates.min_holdout
    value  jsonb,                         -- NULL: what was set before is over
    actor  text NOT NULL CHECK (btrim(actor) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until  timestamptz NOT NULL,
    CHECK (until <= set_at + interval '30 days 1 minute')
);
CREATE INDEX agent_overrides_newest ON perennial.agent_overrides (agent, key, id DESC);

-- dated by this clock alone
CREATE FUNCTION perennial.stamp_override() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.set_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER dated_here BEFORE INSERT ON perennial.agent_overrides FOR EACH ROW EXECUTE FUNCTION perennial.stamp_override();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.agent_overrides FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.agent_overrides FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change();

GRANT SELECT, INSERT ON perennial.agent_overrides TO perennial_app;
GRANT SELECT ON perennial.agent_overrides TO perennial_admit;
GRANT USAGE ON SEQUENCE perennial.agent_overrides_id_seq TO perennial_app;
