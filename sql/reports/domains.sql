-- domains: WER of each method on each domain, the test against source, and the progress of each cell.
-- columns:
--   group, domain, method   the cell; the view cells has all of its columns
--   state           complete, partial, failed or missing
--   in_error        utterances in error, excluded from all rates
--   wer             word error rate, %
--   interval        its 95% bootstrap interval, %; empty if the statistics have not been computed
--   change          WER minus that of source, over the utterances that both have, points
--   margin          half the width of its interval, points
--   change_percent  100 × change / WER of source over the same utterances; without statistics, over all utterances
--   p               p-value of a two-sided sign-flip test of the change, Holm-corrected over the method's domains
--   wtl             wins, ties and losses: utterances with fewer word errors than source, equally many, more
--   withheld        why a cell with all utterances done has no figure
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
SELECT
    cells."group",
    cells.domain,
    cells.method,
    cells.state,
    cells.in_error,
    cells.wer,
    printf('%.1f–%.1f', found.wer_low, found.wer_high) AS interval,
    found.change,
    (found.change_high - found.change_low) / 2 AS margin,
    coalesce(found.change_percent, cells.change_percent) AS change_percent,
    found.p,
    found.wins || '/' || found.ties || '/' || found.losses AS wtl,
    cells.withheld
FROM cells
LEFT JOIN (
    SELECT * FROM statistics WHERE run_id = getvariable('run_id') AND domain IS NOT NULL
) AS found ON cells.domain = found.domain AND cells.method = found.method
LEFT JOIN methods ON cells.method = methods.method
WHERE
    cells.run_id = getvariable('run_id')
    AND cells."group" = coalesce(getvariable('group'), cells."group")
    AND cells.method = coalesce(getvariable('method'), cells.method)
ORDER BY
    min(cells.position) OVER (PARTITION BY cells.domain),
    methods.rank NULLS LAST,
    cells.method
