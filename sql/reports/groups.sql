-- groups: the methods side by side for each group of domains, and the number of domains on which each has a lower WER.
-- columns:
--   group, method   the group, or all; the method
--   wer             mean of the domains' WER, %, each the mean over the method's seeds
--   change          wer minus that of source, points
--   change_percent  change of wer relative to source, %
--   lower, equal, higher   complete domains whose WER is below, equal to, above that of source
--   domains         planned domains
--   in_error        utterances in error, excluded from all rates
--   lowered_most, lowered_most_by   the domain whose WER fell most, and its change in points; empty if none fell
--   raised_most, raised_most_by     the domain whose WER rose most, and its change in points; empty if none rose
--   reason_hidden   why there is no figure yet
-- cell lower/equal/higher: {lower}/{equal}/{higher}
-- cell lowered_most: {lowered_most} ({lowered_most_by:+.2f})
-- cell raised_most: {raised_most} ({raised_most_by:+.2f})
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
WITH
compared AS (
    SELECT
        *,
        wer - source_wer AS change
    FROM domains
    WHERE run_id = getvariable('run_id') AND state = 'complete' AND method <> 'source'
),

counted AS (
    SELECT
        CASE WHEN grouping("group") = 1 THEN 'all' ELSE "group" END AS member_of,
        method,
        count(*) FILTER (change < 0) AS lower,
        count(*) FILTER (change = 0) AS equal,
        count(*) FILTER (change > 0) AS higher,
        arg_min({'domain': domain, 'change': change}, change) FILTER (change < 0) AS lowered,
        arg_max({'domain': domain, 'change': change}, change) FILTER (change > 0) AS raised
    FROM compared
    GROUP BY GROUPING SETS (("group", method), (method))
)

SELECT
    groups."group",
    groups.method,
    groups.wer,
    groups.wer - groups.source_wer AS change,
    groups.change_percent,
    counted.lower,
    counted.equal,
    counted.higher,
    groups.domains,
    groups.in_error,
    counted.lowered.domain AS lowered_most,
    counted.lowered.change AS lowered_most_by,
    counted.raised.domain AS raised_most,
    counted.raised.change AS raised_most_by,
    groups.reason_hidden
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
