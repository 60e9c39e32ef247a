-- name: drop_view
DROP VIEW IF EXISTS public.training_examples
-- name: drop_schema
DROP SCHEMA IF EXISTS perennial CASCADE
-- name: known_roles
SELECT rolname FROM pg_roles WHERE rolname = ANY (%(names)s)
-- name: drop_role
DROP ROLE IF EXISTS {role}
