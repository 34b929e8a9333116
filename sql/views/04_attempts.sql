-- attempts: every attempt at a cell of the current plan, including failed and interrupted ones.
-- grain: one row per attempt that ended.
--   run_id, "group", domain, method, seed, cell_id   the cell
--   attempt            the attempt, from 1
--   newest             whether no later attempt at the cell has ended
--   state              how it ended: complete, failed or interrupted (it was asked to stop)
--   planned, done, reused, errors   utterances: of the cell; done by this attempt; done before; in error
--   error              why it is not complete
--   started_at, finished_at         UTC
--   seconds            wall seconds
--   audio_seconds      seconds of speech that it processed
--   device, host       the device and machine it ran on
--   peak_memory_bytes  peak memory
--   batch_size         utterances adapted side by side at its end
SELECT
    run_id,
    planned."group",
    domain,
    method,
    planned.seed,
    cell_id,
    ended.attempt,
    ended.attempt = max(ended.attempt) OVER (PARTITION BY run_id, domain, method, cell_id) AS newest,
    ended.* EXCLUDE (run_id, domain, method, seed, cell_id, attempt, "group")
FROM raw.cells AS ended
INNER JOIN planned USING (run_id, domain, method, cell_id)
