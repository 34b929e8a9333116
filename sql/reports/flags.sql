-- flags: hypotheses that were cut at the token limit, collapsed, or kept from the source, by language and method.
-- columns:
--   language            the language of the corpus
--   method              the method
--   hypotheses          number of hypotheses, over all seeds of the method
--   truncated           hypotheses cut at the token limit (tokens_per_second of the suite's model)
--   truncated_percent   the same as a percentage
--   collapsed           hypotheses that are empty or repeat themselves endlessly
--   collapsed_percent   the same as a percentage
--   gated               hypotheses of the source: their entropy was not above adapt_above
--   reverted            hypotheses of the source: adapting had raised the entropy or left a loop (revert)
-- param run_id: the run; the newest by default
-- param method: only this method
-- param group: only this group
-- param domain: only this domain
WITH
counted AS (
    SELECT
        language,
        method,
        count(*) AS hypotheses,
        count(*) FILTER (list_contains(flags, 'truncated')) AS truncated,
        count(*) FILTER (list_contains(flags, 'collapsed')) AS collapsed,
        count(*) FILTER (list_contains(flags, 'gated')) AS gated,
        count(*) FILTER (list_contains(flags, 'reverted')) AS reverted
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
    100.0 * counted.collapsed / counted.hypotheses AS collapsed_percent,
    counted.gated,
    counted.reverted
FROM counted
LEFT JOIN methods USING (method)
ORDER BY counted.language, methods.rank NULLS LAST, counted.method
