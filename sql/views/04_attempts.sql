-- attempts: every attempt at a cell that the plan still holds, the failed ones too.
-- grain: one row an attempt that came to its end.
--   run_id, "group", domain, method, cell_id   the cell
--   attempt            the attempt, from 1
--   newest             whether no later attempt at the cell came to its end
--   state              how it ended: complete or failed
--   planned, done, reused, errors   utterances: of the cell; done now; done before; in error
--   error              why it failed
--   started_at, finished_at         UTC
--   seconds            wall seconds
--   audio_seconds      length of the speech that it did
--   device, host       where it ran
--   peak_memory_bytes  most memory in use
--   batch_size         utterances side by side at its end
SELECT
    run_id,
    planned."group",
    domain,
    method,
    cell_id,
    ended.attempt,
    ended.attempt = max(ended.attempt) OVER (PARTITION BY run_id, domain, method) AS newest,
    ended.* EXCLUDE (run_id, domain, method, cell_id, attempt, "group")
FROM raw.cells AS ended
INNER JOIN planned USING (run_id, domain, method, cell_id)
