"""The PostgreSQL seam: pools, named queries and migrations."""
