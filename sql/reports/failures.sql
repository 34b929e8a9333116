-- failures: every incomplete cell, every utterance in error, and the effect of these errors on the rates.
-- columns:
--   what                    cell, utterance, or rate (of a cell with utterances in error)
--   group, domain, method   the cell
--   seed                    its seed, in a run whose methods have several
--   utterance_id            the utterance in error; empty for a cell
--   state                   failed, partial or missing for a cell; in error for an utterance
--   done, planned           utterances of a cell
--   attempt                 the newest attempt that ended, or the one that wrote the utterance's row
--   error                   what went wrong, if known
--   wer_excluded, wer_deleted   for a rate: WER without the utterances in error, and with all their words as deleted
-- optional seed
-- optional wer_excluded
-- optional wer_deleted
-- param run_id: the run; the newest by default
WITH
missing AS (
    SELECT
        'cell' AS what,
        cells.position,
        "group",
        domain,
        method,
        seed,
        NULL AS utterance_id,
        cells.state,
        done,
        planned,
        ended.attempt,
        cells.error,
        NULL AS wer_excluded,
        NULL AS wer_deleted
    FROM cells
    LEFT JOIN (
        SELECT run_id, domain, method, cell_id, attempt FROM attempts WHERE newest
    ) AS ended USING (run_id, domain, method, cell_id)
    WHERE run_id = getvariable('run_id') AND state <> 'complete'
),

in_error AS (
    SELECT
        'utterance' AS what,
        planned.position,
        utterances."group",
        domain,
        method,
        planned.seed,
        utterance_id,
        'in error' AS state,
        NULL AS done,
        NULL AS planned,
        attempt,
        error,
        NULL AS wer_excluded,
        NULL AS wer_deleted
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = getvariable('run_id') AND error IS NOT NULL
),

rates AS (
    SELECT
        'rate' AS what,
        planned.position,
        any_value(utterances."group") AS "group",
        domain,
        method,
        any_value(planned.seed) AS seed,
        NULL AS utterance_id,
        'in error' AS state,
        count(error) AS done,
        count(*) AS planned,
        NULL AS attempt,
        count(error) || ' of ' || count(*) || ' utterances are in error' AS error,
        100.0 * sum(errors) FILTER (error IS NULL) / nullif(sum(words) FILTER (error IS NULL), 0) AS wer_excluded,
        100.0 * (coalesce(sum(errors) FILTER (error IS NULL), 0) + sum(reference_words) FILTER (error IS NOT NULL))
        / nullif(sum(reference_words), 0) AS wer_deleted
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = getvariable('run_id')
    GROUP BY planned.position, domain, method, cell_id
    HAVING count(error) > 0
),

several AS (
    SELECT count(DISTINCT seed) > 1 AS has_seeds
    FROM planned
    WHERE run_id = getvariable('run_id')
)

SELECT * EXCLUDE (position, has_seeds) REPLACE (CASE WHEN has_seeds THEN seed END AS seed)
FROM (FROM missing UNION ALL BY NAME FROM in_error UNION ALL BY NAME FROM rates) AS failed
CROSS JOIN several
ORDER BY what = 'rate', what, position, utterance_id
