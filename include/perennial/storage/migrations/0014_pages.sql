-- What the pages read by agent, newest first: without these a page of one agent would sort the rows of all.
CREATE INDEX gate_reports_by_agent ON perennial.gate_reports (agent, id DESC);
CREATE INDEX versions_by_agent ON perennial.versions (agent, ordinal DESC);
