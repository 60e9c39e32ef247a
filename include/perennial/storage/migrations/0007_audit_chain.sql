-- The audit becomes tamper-evident: rows are chained by hash, batch by batch, and enter through one function alone.
-- One hash per batch and not per row: a chain of rows would make every writer wait for the one before it.
-- audit/chain.py computes the same hashes; whoever verifies does it there and trusts nothing of what is defined here.

-- Rows that no batch holds yet, with the digest that they had when they were written. A queue and not a mark "up to id n":
-- ids are handed out before transactions end, so a row may become visible after a higher id was sealed; it then goes into the next batch.
CREATE TABLE perennial.audit_unsealed (
    id      bigint PRIMARY KEY,
    at      timestamptz NOT NULL,
    content bytea NOT NULL
);

-- The chain. `members` holds 48 bytes per row in the order of their ids: id, time, digest of all other columns.
CREATE TABLE perennial.audit_batches (
    batch     bigint PRIMARY KEY CHECK (batch > 0),
    first_id  bigint NOT NULL,
    last_id   bigint NOT NULL,
    count     bigint NOT NULL CHECK (count > 0),
    total     bigint NOT NULL,                   -- rows sealed up to here, these included
    sealed_at timestamptz NOT NULL,
    members   bytea NOT NULL,
    digest    bytea NOT NULL,                    -- sha256 of `members`
    previous  bytea NOT NULL UNIQUE,             -- hash of the batch before; 32 zeros in the first
    hash      bytea NOT NULL UNIQUE              -- sha256 of everything above but `members`
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON perennial.audit_batches FOR EACH ROW EXECUTE FUNCTION perennial.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.audit_batches FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON perennial.audit_unsealed FOR EACH STATEMENT EXECUTE FUNCTION perennial.refuse_change();

-- One column as COPY BINARY writes it: four bytes of length, then the bytes. So no two rows look alike.
CREATE FUNCTION perennial.audit_field(value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT int4send(octet_length(value)) || value
$$;

-- Digest of every column but id and at, which stand beside it. Equals sha256 over the rest of the row as COPY BINARY writes it.
CREATE FUNCTION perennial.audit_content(actor text, action text, agent text, subject text, detail jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sha256(perennial.audit_field(convert_to(actor, 'UTF8')) || perennial.audit_field(convert_to(action, 'UTF8'))
               || perennial.audit_field(convert_to(agent, 'UTF8')) || perennial.audit_field(convert_to(subject, 'UTF8'))
               || perennial.audit_field('\x01'::bytea || convert_to(detail::text, 'UTF8')))
$$;

-- The only way in. Id, time and digest are made here: a caller can claim none of them. Returns the id.
CREATE FUNCTION perennial.append_audit(actor text, action text, agent text, subject text, detail jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made perennial.audit;
BEGIN
    IF coalesce(btrim(actor), '') = '' OR coalesce(btrim(action), '') = '' THEN
        RAISE EXCEPTION 'an audit entry names who did what' USING ERRCODE = 'check_violation', HINT = 'give actor and action';
    END IF;
    INSERT INTO perennial.audit AS a (actor, action, agent, subject, detail)
    VALUES (append_audit.actor, append_audit.action, coalesce(append_audit.agent, ''), coalesce(append_audit.subject, ''),
            coalesce(append_audit.detail, '{}'))
    RETURNING a.* INTO made;
    INSERT INTO perennial.audit_unsealed (id, at, content)
    VALUES (made.id, made.at, perennial.audit_content(made.actor, made.action, made.agent, made.subject, made.detail));
    RETURN made.id;
END $$;

-- Chain at most `most` waiting rows as one new batch; no row comes back when nothing waits or somebody else is sealing.
-- One transaction per batch: killed anywhere, the batch is there whole or not at all, and the next call goes on.
CREATE FUNCTION perennial.seal_audit(most integer DEFAULT 4096)
RETURNS TABLE (batch bigint, first_id bigint, last_id bigint, count bigint, total bigint, sealed_at timestamptz,
               digest bytea, previous bytea, hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    before perennial.audit_batches;
    made perennial.audit_batches;
BEGIN
    IF NOT pg_try_advisory_xact_lock(720722, 0) THEN
        RETURN;
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT u.id FROM perennial.audit_unsealed u ORDER BY u.id LIMIT least(greatest(most, 1), 4096)
    ), taken AS (
        DELETE FROM perennial.audit_unsealed u USING chosen c WHERE u.id = c.id RETURNING u.id, u.at, u.content
    )
    SELECT min(t.id), max(t.id), count(*), string_agg(int8send(t.id) || timestamptz_send(t.at) || t.content, ''::bytea ORDER BY t.id)
    INTO made.first_id, made.last_id, made.count, made.members FROM taken t;
    IF made.count = 0 THEN
        RETURN;
    END IF;
    SELECT b.* INTO before FROM perennial.audit_batches b ORDER BY b.batch DESC LIMIT 1;
    made.batch := coalesce(before.batch, 0) + 1;
    made.total := coalesce(before.total, 0) + made.count;
    made.previous := coalesce(before.hash, decode(repeat('00', 32), 'hex'));
    made.sealed_at := clock_timestamp();
    made.digest := sha256(made.members);
    made.hash := sha256(convert_to('perennial audit 1', 'UTF8') || int8send(made.batch) || int8send(made.first_id)
        || int8send(made.last_id) || int8send(made.count) || int8send(made.total) || timestamptz_send(made.sealed_at)
        || made.digest || made.previous);
    INSERT INTO perennial.audit_batches VALUES (made.*);
    RETURN QUERY SELECT made.batch, made.first_id, made.last_id, made.count, made.total, made.sealed_at, made.digest, made.previous,
                        made.hash;
END $$;

-- Rows of before the chain are its first batches.
INSERT INTO perennial.audit_unsealed (id, at, content)
SELECT id, at, perennial.audit_content(actor, action, agent, subject, detail) FROM perennial.audit;
DO $$
BEGIN
    WHILE EXISTS (SELECT 1 FROM perennial.seal_audit()) LOOP
    END LOOP;
END $$;

REVOKE ALL ON perennial.audit FROM perennial_app, perennial_admit;
REVOKE ALL ON SEQUENCE perennial.audit_id_seq FROM perennial_app, perennial_admit;
GRANT SELECT ON perennial.audit, perennial.audit_batches, perennial.audit_unsealed TO perennial_app, perennial_admit;
REVOKE ALL ON FUNCTION perennial.audit_field(bytea), perennial.audit_content(text, text, text, text, jsonb),
    perennial.append_audit(text, text, text, text, jsonb), perennial.seal_audit(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perennial.append_audit(text, text, text, text, jsonb), perennial.seal_audit(integer)
    TO perennial_app, perennial_admit;
