"""Releases: one directory per version, signed, recorded in an append-only ledger, and kept in MLflow."""
