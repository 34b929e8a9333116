-- leaderboard: WER of each method by group and overall, with the test against source.
-- columns:
--   method, group   the method; the group, or all
--   wer             mean of the domains' WER, %
--   interval        its 95% bootstrap interval, %; empty if the statistics have not been computed
--   change          WER minus that of source, over the utterances that both have, points
--   margin          half the width of its interval, points
--   change_percent  100 × change / WER of source over the same utterances; without statistics, over all utterances
--   p               p-value of a two-sided sign-flip test of the change
--   wtl             wins, ties and losses: utterances with fewer word errors than source, equally many, more
--   in_error        utterances in error, excluded from all rates
--   withheld        why there is no figure yet
-- param run_id: the run; the newest by default
SELECT
    groups.method,
    groups."group",
    groups.wer,
    printf('%.1f–%.1f', found.wer_low, found.wer_high) AS interval,
    found.change,
    (found.change_high - found.change_low) / 2 AS margin,
    coalesce(found.change_percent, groups.change_percent) AS change_percent,
    found.p,
    found.wins || '/' || found.ties || '/' || found.losses AS wtl,
    groups.in_error,
    groups.withheld
FROM groups
LEFT JOIN (
    SELECT * FROM statistics WHERE run_id = getvariable('run_id') AND domain IS NULL
) AS found ON groups.method = found.method AND groups."group" = found."group"
LEFT JOIN methods ON groups.method = methods.method
WHERE groups.run_id = getvariable('run_id')
ORDER BY methods.rank NULLS LAST, groups.method, groups.position
