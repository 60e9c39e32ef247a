-- A full buffer costs little to keep full.

-- Evict the least worth of an agent's waiting rows until its limit holds; never a correction. Returns how many left.
-- `newest` is the highest id just inserted. A buffer may stand over its limit by what was being written in the same moment.
-- From 10,000 places on, a thousandth more leaves than must, so that a full buffer under a flood is not counted for every row.
CREATE OR REPLACE FUNCTION perennial.evict(of_agent text, newest bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    allowed integer;
    waiting_now bigint;
    spare integer;
    gone integer;
BEGIN
    SELECT max_buffer_size INTO allowed FROM perennial.limits WHERE agent = of_agent;
    PERFORM 1 FROM perennial.rooms WHERE agent = of_agent AND most = allowed AND until >= newest;
    -- one counts at a time; whoever finds it taken leaves it to the next add
    IF FOUND OR NOT pg_try_advisory_xact_lock(720721, hashtext(of_agent)) THEN
        RETURN 0;
    END IF;
    SELECT count(*) INTO waiting_now FROM perennial.waiting WHERE agent = of_agent;
    IF waiting_now < allowed THEN
        INSERT INTO perennial.rooms AS r VALUES (of_agent, allowed, newest + allowed - waiting_now)
        ON CONFLICT (agent) DO UPDATE SET most = excluded.most, until = excluded.until;
    END IF;
    IF waiting_now <= allowed THEN
        RETURN 0;
    END IF;
    spare := CASE WHEN allowed >= 10000 THEN allowed / 1000 ELSE 0 END;
    WITH least AS MATERIALIZED (
        SELECT example_id FROM perennial.waiting WHERE agent = of_agent AND NOT correction
        ORDER BY priority, importance, uncertainty, created_at, id LIMIT waiting_now - allowed + spare
    ), leaving AS MATERIALIZED (  -- rows that another transaction holds stay for now: an add never waits for an admission
        SELECT e.example_id FROM perennial.examples e JOIN least USING (example_id) WHERE e.state IN ('raw', 'ready')
        FOR UPDATE OF e SKIP LOCKED
    )
    UPDATE perennial.examples e SET state = 'evicted', reason = 'buffer_full' FROM leaving WHERE e.example_id = leaving.example_id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF waiting_now - gone < allowed THEN
        INSERT INTO perennial.rooms AS r VALUES (of_agent, allowed, newest + allowed - (waiting_now - gone))
        ON CONFLICT (agent) DO UPDATE SET most = excluded.most, until = excluded.until;
    END IF;
    RETURN gone;
END $$;
