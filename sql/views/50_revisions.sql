-- revisions: a digest of the results behind a method's statistics, to detect stale statistics.
-- grain: one row per run and method.
-- Any later attempt that changes the counted rows gives another revision: a redone utterance counts with a
-- higher attempt, and a newly done one adds a row. So does another scorer, release or transcript.
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
        -- Sums that another scoring of the same hypotheses is unlikely to repeat, and the normalizer.
        concat_ws(
            ' ',
            sum(words),
            sum(substitutions),
            sum(deletions),
            sum(insertions),
            sum(words * errors),
            sum(errors * errors),
            min(scorer),
            string_agg(DISTINCT normalizer, ',' ORDER BY normalizer)
        ) AS scores,
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
                scores,
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
