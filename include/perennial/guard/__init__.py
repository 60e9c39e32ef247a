"""What stands between raw data and a trainer: record checks, batch expectations, redaction of personal data."""
