-- groups: the methods side by side for each group of domains, and on how many domains each helps.
-- columns:
--   group, method   the group, or all; the method
--   domains         planned domains
--   in_error        utterances in error, excluded from all rates
--   wer             mean of the domains' WER, %
--   change          wer minus that of source, points
--   change_percent  change of wer relative to source, %
--   better, equal, worse   complete domains whose WER is below, equal to, above that of source
--   most_helped     the domain whose WER fell most, with its change in points; empty if none fell
--   most_harmed     the domain whose WER rose most, with its change in points; empty if none rose
--   withheld        why there is no figure yet
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
WITH
compared AS (
    SELECT
        *,
        wer - source_wer AS change
    FROM cells
    WHERE run_id = getvariable('run_id') AND state = 'complete' AND method <> 'source'
),

counted AS (
    SELECT
        CASE WHEN grouping("group") = 1 THEN 'all' ELSE "group" END AS member_of,
        method,
        count(*) FILTER (change < 0) AS better,
        count(*) FILTER (change = 0) AS equal,
        count(*) FILTER (change > 0) AS worse,
        arg_min({'domain': domain, 'change': change}, change) FILTER (change < 0) AS helped,
        arg_max({'domain': domain, 'change': change}, change) FILTER (change > 0) AS harmed
    FROM compared
    GROUP BY GROUPING SETS (("group", method), (method))
)

SELECT
    groups."group",
    groups.method,
    groups.domains,
    groups.in_error,
    groups.wer,
    groups.wer - groups.source_wer AS change,
    groups.change_percent,
    counted.better,
    counted.equal,
    counted.worse,
    counted.helped.domain || printf(' (%+.2f)', counted.helped.change) AS most_helped,
    counted.harmed.domain || printf(' (%+.2f)', counted.harmed.change) AS most_harmed,
    groups.withheld
FROM groups
LEFT JOIN counted ON groups."group" = counted.member_of AND groups.method = counted.method
LEFT JOIN methods ON groups.method = methods.method
WHERE
    groups.run_id = getvariable('run_id')
    AND groups."group" = coalesce(getvariable('group'), groups."group")
    AND groups.method = coalesce(getvariable('method'), groups.method)
ORDER BY
    min(groups.position) OVER (PARTITION BY groups."group"),
    methods.rank NULLS LAST,
    groups.method
