-- name: make_ledger
CREATE TABLE IF NOT EXISTS public.perennial_migrations (
    name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
-- name: applied
SELECT name, digest FROM public.perennial_migrations ORDER BY name
-- name: record
INSERT INTO public.perennial_migrations (name, digest) VALUES (%s, %s)
-- name: lock
SELECT pg_advisory_xact_lock(720720)
-- name: has_ledger
SELECT to_regclass('public.perennial_migrations') IS NOT NULL
