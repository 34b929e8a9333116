-- runs: the runs of the store, newest first.
-- columns:
--   run_id                    the run
--   state                     complete or incomplete
--   created_at                UTC
--   complete, cells           cells: complete, planned
--   suite, model              the suite and the model
--   done, planned, in_error, reused   utterances: done, planned, in error, done and reused from another cell
-- cell cells: {complete} of {cells}
-- cell utterances: {done} of {planned}
-- of the whole store
SELECT run_id, state, created_at, complete, cells, suite, model, done, planned, in_error, reused
FROM runs
ORDER BY created_at DESC, run_id DESC
