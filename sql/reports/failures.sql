-- failures: every cell that is not complete, and every utterance in error.
-- columns:
--   what                    cell or utterance
--   group, domain, method   the cell
--   seed                    its seed, in a run whose methods have several
--   utterance_id            the utterance in error; empty for a cell
--   state                   failed, partial or missing for a cell; in error for an utterance
--   done, planned           utterances of a cell
--   attempt                 the newest attempt that ended, or the one that wrote the utterance's row
--   error                   what went wrong, if known
-- optional seed
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
        cells.error
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
        error
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = getvariable('run_id') AND error IS NOT NULL
),

several AS (
    SELECT count(DISTINCT seed) > 1 AS has_seeds
    FROM planned
    WHERE run_id = getvariable('run_id')
)

SELECT * EXCLUDE (position, has_seeds) REPLACE (CASE WHEN has_seeds THEN seed END AS seed)
FROM (FROM missing UNION ALL FROM in_error) AS failed
CROSS JOIN several
ORDER BY what, position, utterance_id
