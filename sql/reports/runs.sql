-- runs: the runs of the store, newest first.
-- columns:
--   run_id, suite, model      the run
--   created_at                UTC
--   state                     complete or incomplete
--   cells, complete           cells: planned, complete
--   planned, done, in_error, reused   utterances: planned, done, in error, done and reused from another run
SELECT run_id, suite, model, created_at, state, cells, complete, planned, done, in_error, reused
FROM runs
ORDER BY created_at DESC, run_id DESC
