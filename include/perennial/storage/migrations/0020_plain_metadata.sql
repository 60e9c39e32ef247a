-- Nothing raw beside the originals: sender, tag, address, an unknown task's name, labels and answers stand in `examples` before anybody
-- looked at the record, and the app role reads them. ingest/plain_words.py has the same rules.

-- Secret of the pseudonyms. The owner's alone.
CREATE TABLE perennial.salt (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    salt bytea NOT NULL
);
INSERT INTO perennial.salt (salt)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- No e-mail address, no IP address, no number of nine digits or more.
CREATE FUNCTION perennial.is_plain(value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT value !~* '@|%40' AND value !~ '(?<![0-9])[0-9]{1,3}([.][0-9]{1,3}){3}(?![0-9])|([0-9a-fA-F]{0,4}:){3,}[0-9a-fA-F]{0,4}' AND value !~ '([0-9][ ().-]{0,2}){8,}[0-9]'
$$;

CREATE FUNCTION perennial.is_plain_url(value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT value !~ '[@%]|\s|[0-9]{3}-[0-9]{2}-[0-9]{4}' AND value !~ '(?<![0-9])[0-9]{1,3}([.][0-9]{1,3}){3}(?![0-9])|([0-9a-fA-F]{0,4}:){3,}[0-9a-fA-F]{0,4}' AND value !~ '([0-9][ ().-]{0,2}){12,}[0-9]'
$$;

CREATE FUNCTION perennial.plain_url(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN perennial.is_plain_url(value) THEN value
                WHEN perennial.is_plain_url(regexp_replace(value, '[?#].*$', '')) THEN regexp_replace(value, '[?#].*$', '') ELSE '' END
$$;

CREATE FUNCTION perennial.is_plain_sender(value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT value ~ '^(inbox:[0-9a-f]{12}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$'
        OR (perennial.is_plain(value) AND value !~ '\s')
$$;

-- HMAC-SHA256 (RFC 2104) under the salt, its first 16 digits: one sender keeps one name, and nobody without the salt can test a guess.
CREATE FUNCTION perennial.pseudonym(value text) RETURNS text LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key bytea;
    inner_pad bytea := ''::bytea;
    outer_pad bytea := ''::bytea;
BEGIN
    SELECT s.salt INTO key FROM perennial.salt s;
    FOR place IN 0..63 LOOP
        inner_pad := inner_pad || decode(lpad(to_hex((CASE WHEN place < 32 THEN get_byte(key, place) ELSE 0 END) # 54), 2, '0'), 'hex');
        outer_pad := outer_pad || decode(lpad(to_hex((CASE WHEN place < 32 THEN get_byte(key, place) ELSE 0 END) # 92), 2, '0'), 'hex');
    END LOOP;
    RETURN left(encode(sha256(outer_pad || sha256(inner_pad || convert_to(value, 'UTF8'))), 'hex'), 16);
END $$;
REVOKE ALL ON FUNCTION perennial.pseudonym(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perennial.pseudonym(text) TO perennial_app, perennial_admit;

-- Numbers, truth values and plain strings; whatever else waits with the original.
CREATE FUNCTION perennial.plain_answer(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE jsonb_typeof(value) WHEN 'string' THEN 
        CASE WHEN perennial.is_plain(value #>> '{}') AND regexp_count(btrim(value #>> '{}'), '\s+') < 4 THEN value END
                                    WHEN 'number' THEN CASE WHEN abs((value #>> '{}')::numeric) < 100000000 THEN value END ELSE value END
$$;

CREATE FUNCTION perennial.keep_plain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.source_id <> '' AND NOT perennial.is_plain_sender(NEW.source_id) THEN
        NEW.source_id := 'id-' || perennial.pseudonym(NEW.source_id);
    END IF;
    IF NEW.source_url <> '' THEN
        NEW.source_url := perennial.plain_url(NEW.source_url);
    END IF;
    IF NEW.tag <> '' AND (NEW.tag ~ '\s' OR NOT perennial.is_plain(NEW.tag)) THEN
        NEW.tag := 'other';
    END IF;
    IF NEW.reason = 'unknown_task' AND ((NEW.task ~ '\s' AND NEW.task <> lower(NEW.task)) OR NOT perennial.is_plain(NEW.task)) THEN
        NEW.task := 'task-' || perennial.pseudonym(NEW.task);
    END IF;
    -- admission writes the label anew from the original; until then one word may stand
    NEW.expected_output := CASE WHEN NEW.expected_output #>> '{}' !~ '\s' THEN perennial.plain_answer(NEW.expected_output) END;
    NEW.predicted_output := perennial.plain_answer(NEW.predicted_output);
    RETURN NEW;
END $$;
-- Before `note_sources`, which reads what was stored. A word of letters with a few digits at its end, or a small number, is left as it
-- is by all of the above: rows that hold no more than these, nearly all of a bulk, do not pay for the call.
CREATE TRIGGER keep_plain BEFORE INSERT ON perennial.examples FOR EACH ROW
WHEN (NEW.source_url <> '' OR NEW.reason = 'unknown_task' OR NEW.source_id !~ '^[A-Za-z_-]{0,60}[0-9]{0,6}$' OR NEW.tag !~ '^[A-Za-z_-]{0,60}[0-9]{0,6}$'
      OR coalesce(NEW.expected_output #>> '{}' !~ '^([A-Za-z_-]{1,60}[0-9]{0,6}|-?[0-9]{1,6}([.][0-9]{1,6})?)$', false)
      OR coalesce(NEW.predicted_output #>> '{}' !~ '^([A-Za-z_-]{1,60}[0-9]{0,6}|-?[0-9]{1,6}([.][0-9]{1,6})?)$', false))
EXECUTE FUNCTION perennial.keep_plain();

-- What older releases wrote.
UPDATE perennial.examples SET source_id = 'id-' || perennial.pseudonym(source_id)
WHERE source_id <> '' AND NOT perennial.is_plain_sender(source_id);
UPDATE perennial.sources SET source_id = 'id-' || perennial.pseudonym(source_id)
WHERE source_id <> '' AND NOT perennial.is_plain_sender(source_id);
UPDATE perennial.examples SET source_url = perennial.plain_url(source_url) WHERE source_url <> '' AND NOT perennial.is_plain_url(source_url);
UPDATE perennial.examples SET tag = 'other' WHERE tag <> '' AND (tag ~ '\s' OR NOT perennial.is_plain(tag));
UPDATE perennial.examples SET task = 'task-' || perennial.pseudonym(task)
WHERE reason = 'unknown_task' AND ((task ~ '\s' AND task <> lower(task)) OR NOT perennial.is_plain(task));
UPDATE perennial.examples SET expected_output = NULL, predicted_output = NULL WHERE state = 'quarantined';
UPDATE perennial.examples SET predicted_output = perennial.plain_answer(predicted_output)
WHERE predicted_output IS DISTINCT FROM perennial.plain_answer(predicted_output);
UPDATE perennial.examples SET expected_output = perennial.plain_answer(expected_output)
WHERE admitted_at IS NULL AND expected_output IS DISTINCT FROM perennial.plain_answer(expected_output);
UPDATE perennial.outcomes SET actual = '"[removed]"' WHERE perennial.plain_answer(actual) IS NULL;
-- recorded inputs were kept as they came; they are replayed to candidates only, and new ones come within minutes
DELETE FROM perennial.recent_inputs;
