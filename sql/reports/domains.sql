-- domains: WER of each method on each domain, the test against source, and the progress of each cell.
-- columns:
--   domain, method  the cell; the view cells has all of its columns
--   wer             word error rate, %
--   wer_low, wer_high   its 95% bootstrap interval, %; empty if the statistics have not been computed
--   change          WER minus that of source, over the utterances that both have, points
--   ci_half_width   half the width of its 95% interval, points: the interval is change ± ci_half_width
--   p               p-value of the two-sided test that the mean change is 0, Holm-corrected over the method's domains
--   p_sign_flip     p-value of the sign-flip test that method and source can be exchanged, likewise
--   change_percent  100 × change / WER of source over the same utterances; without statistics, over all utterances
--   group           the domain's group
--   state           complete, partial, failed or missing
--   wins, ties, losses  utterances with fewer word errors than source, equally many, more
--   in_error        utterances in error, excluded from all rates
--   reason_hidden   why a cell with all utterances done has no figure
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- cell wins_ties_losses: {wins}/{ties}/{losses}
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
SELECT
    cells.domain,
    cells.method,
    cells.wer,
    found.wer_low,
    found.wer_high,
    found.change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    found.p,
    found.p_sign_flip,
    coalesce(found.change_percent, cells.change_percent) AS change_percent,
    cells."group",
    cells.state,
    found.wins,
    found.ties,
    found.losses,
    cells.in_error,
    cells.reason_hidden
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
