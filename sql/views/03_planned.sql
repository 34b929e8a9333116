-- planned: what each run set out to do.
-- grain: one row a planned cell (run, domain, method).
--   run_id      the run
--   position    place in the plan, from 0
--   "group"     the group that the domain belongs to
--   domain      the domain
--   method      the method
--   cell_id     identity of the cell; rows of another identity do not count
--   corpus_id   identity of the prepared corpus
--   utterances  utterances that the cell is to have
SELECT run_id, position, "group", domain, method, cell_id, corpus_id, utterances
FROM raw.plans
