-- planned: the planned cells of each run.
-- grain: one row per planned cell (run, domain, method).
--   run_id      the run
--   position    position in the plan, from 0
--   "group"     the group that the domain belongs to
--   domain      the domain
--   method      the method
--   cell_id     identity of the cell; rows with a different identity do not count
--   corpus_id   identity of the prepared corpus
--   utterances  planned utterances
--   sample      which utterances of its corpus a limit takes, in words; NULL if all are used
SELECT run_id, position, "group", domain, method, cell_id, corpus_id, utterances, sample
FROM raw.plans
