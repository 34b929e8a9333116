-- planned: the planned cells of each run.
-- grain: one row per planned cell (run, domain, method, seed).
--   run_id      the run
--   position    position in the plan, from 0
--   "group"     the group that the domain belongs to
--   domain      the domain
--   method      the method
--   seed        the seed of its random numbers; NULL if it draws none
--   cell_id     identity of the cell; rows with a different identity do not count
--   corpus_id   identity of the prepared corpus
--   utterances  planned utterances
--   sample      which utterances of its corpus a limit selects, in words; NULL if all are used
--   scorer      the scorer of all figures: the requested one, otherwise the suite's first
--   counts_errors   whether rates count an utterance in error as deleted, instead of excluding it
SELECT
    run_id,
    position,
    "group",
    domain,
    method,
    seed,
    cell_id,
    corpus_id,
    utterances,
    sample,
    coalesce(getvariable('scorer'), scorer) AS scorer,
    counts_errors
FROM raw.plans
