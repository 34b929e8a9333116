-- revisions: a digest of the results behind a method's statistics, to detect stale statistics.
-- grain: one row per run and method.
-- Any later attempt that changes the counted rows gives another revision: a redone utterance counts with a
-- higher attempt, and a newly done one counts as one more.
--   run_id, method  the run and the method
--   revision        a digest of the counted rows of its cells, and of those of source
WITH
counted AS (
    SELECT
        run_id,
        domain,
        method,
        cell_id,
        count(*) AS done,
        count(error) AS in_error,
        sum(words) AS words,
        sum(errors) AS errors,
        sum(attempt) AS attempts
    FROM utterances
    GROUP BY run_id, domain, method, cell_id
),

ended AS (
    SELECT run_id, domain, method, cell_id, max(attempt) AS attempt
    FROM attempts
    GROUP BY run_id, domain, method, cell_id
),

joined AS (
    SELECT
        run_id,
        method,
        string_agg(
            concat_ws(
                ' ',
                domain,
                cell_id,
                coalesce(done, 0),
                coalesce(in_error, 0),
                coalesce(words, 0),
                coalesce(errors, 0),
                coalesce(attempts, 0),
                coalesce(ended.attempt, 0)
            ), ', ' ORDER BY domain, seed
        ) AS facts
    FROM planned
    LEFT JOIN counted USING (run_id, domain, method, cell_id)
    LEFT JOIN ended USING (run_id, domain, method, cell_id)
    GROUP BY run_id, method
)

SELECT
    run_id,
    method,
    md5(facts || ' against ' || coalesce(max(facts) FILTER (method = 'source') OVER (PARTITION BY run_id), '')) AS revision
FROM joined
