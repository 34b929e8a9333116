-- flags: how many hypotheses were cut at the most tokens, or collapsed, by language and method.
-- columns:
--   language            of the corpus
--   method              the method
--   hypotheses          how many there are
--   truncated           of them, those cut at the most tokens (tokens_per_second of the suite's model)
--   truncated_percent   the same, %
--   collapsed           of them, those that are empty, or repeat themselves without an end
--   collapsed_percent   the same, %
-- param run_id: the run; the newest by default
-- param method: one method alone
-- param group: one group alone
-- param domain: one domain alone
WITH
counted AS (
    SELECT
        language,
        method,
        count(*) AS hypotheses,
        count(*) FILTER (list_contains(flags, 'truncated')) AS truncated,
        count(*) FILTER (list_contains(flags, 'collapsed')) AS collapsed
    FROM utterances
    WHERE
        run_id = getvariable('run_id')
        AND hypothesis IS NOT NULL
        AND method = coalesce(getvariable('method'), method)
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
    GROUP BY language, method
)

SELECT
    counted.language,
    counted.method,
    counted.hypotheses,
    counted.truncated,
    100.0 * counted.truncated / counted.hypotheses AS truncated_percent,
    counted.collapsed,
    100.0 * counted.collapsed / counted.hypotheses AS collapsed_percent
FROM counted
LEFT JOIN methods USING (method)
ORDER BY counted.language, methods.rank NULLS LAST, counted.method
