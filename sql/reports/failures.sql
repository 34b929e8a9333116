-- failures: every cell that is not complete, and every utterance in error.
-- columns:
--   what                    cell or utterance
--   group, domain, method   the cell
--   utterance_id            the utterance in error; empty for a cell
--   state                   failed, partial or missing for a cell; in error for an utterance
--   done, planned           utterances of a cell
--   attempt                 the newest attempt that ended, or the one that wrote the utterance's row
--   error                   what went wrong, if known
-- param run_id: the run; the newest by default
WITH
missing AS (
    SELECT
        'cell' AS what,
        cells.position,
        "group",
        domain,
        method,
        NULL AS utterance_id,
        cells.state,
        done,
        planned,
        ended.attempt,
        cells.error
    FROM cells
    LEFT JOIN (
        SELECT run_id, domain, method, attempt FROM attempts WHERE newest
    ) AS ended USING (run_id, domain, method)
    WHERE run_id = getvariable('run_id') AND state <> 'complete'
),

in_error AS (
    SELECT
        'utterance' AS what,
        planned.position,
        utterances."group",
        domain,
        method,
        utterance_id,
        'in error' AS state,
        NULL AS done,
        NULL AS planned,
        attempt,
        error
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method)
    WHERE run_id = getvariable('run_id') AND error IS NOT NULL
)

SELECT * EXCLUDE (position)
FROM (FROM missing UNION ALL FROM in_error) AS failed
ORDER BY what, position, utterance_id
