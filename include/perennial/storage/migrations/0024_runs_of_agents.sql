-- Airflow keeps run ids apart within one DAG only, so the runs of two agents may bear one id. Run id first: it alone says most.
ALTER TABLE perennial.jobs DROP CONSTRAINT jobs_run_id_key, ADD CONSTRAINT jobs_of_run UNIQUE (run_id, agent);
ALTER TABLE perennial.rollouts DROP CONSTRAINT rollouts_run_id_key, ADD CONSTRAINT rollouts_of_run UNIQUE (run_id, agent);
