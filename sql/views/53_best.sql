-- best: the method with the lowest WER of each group, and whether the tests call it the best.
-- grain: one row per run and group with two or more complete methods, the group `all` included.
-- A method is the best if its WER is significantly lower than that of each other complete method, after Holm's
-- correction over all pairs of methods.
--   run_id, "group" the run; the group, or all
--   method          the method with the lowest WER; the first in the order of the methods if several tie
--   wer             its WER, %
--   is_best         whether it is the best
--   not_distinguishable   the other methods that do not differ significantly from it, in the order of their WER; or NULL
--   not_tested      the other methods without a test, likewise
--   verdict         the same in words
WITH
ranked AS (
    SELECT
        run_id,
        "group",
        method,
        wer,
        row_number() OVER (PARTITION BY run_id, "group" ORDER BY wer, methods.rank NULLS LAST, method) AS position
    FROM groups
    LEFT JOIN methods USING (method)
    WHERE wer IS NOT NULL
),

lowest AS (FROM ranked WHERE position = 1),

pairs AS (FROM method_pairs),

tested AS (
    SELECT run_id, "group", baseline AS method, method AS other, verdict = 'worse' AS is_better FROM pairs
    UNION ALL
    SELECT run_id, "group", method, baseline AS other, verdict = 'better' AS is_better FROM pairs
),

judged AS (
    SELECT
        run_id,
        "group",
        lowest.method,
        lowest.wer,
        bool_and(coalesce(tested.is_better, FALSE)) AS is_best,
        string_agg(others.method, ', ' ORDER BY others.position) FILTER (NOT tested.is_better) AS not_distinguishable,
        string_agg(others.method, ', ' ORDER BY others.position) FILTER (tested.is_better IS NULL) AS not_tested
    FROM lowest
    INNER JOIN ranked AS others USING (run_id, "group")
    LEFT JOIN tested
        ON run_id = tested.run_id
        AND "group" = tested."group"
        AND lowest.method = tested.method
        AND others.method = tested.other
    WHERE others.position > 1
    GROUP BY run_id, "group", lowest.method, lowest.wer
)

SELECT
    *,
    CASE
        WHEN is_best THEN 'best: ' || method
        ELSE concat_ws(
            '; ',
            'lowest WER: ' || method,
            'not distinguishable from ' || not_distinguishable,
            'not tested against ' || not_tested
        )
    END AS verdict
FROM judged
