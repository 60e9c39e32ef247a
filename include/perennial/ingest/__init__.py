"""From a foreign record to a durable row: checks, the buffer and its jobs, admission."""
