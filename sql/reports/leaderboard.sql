-- leaderboard: WER of each method over each group of domains, and over all, and whether it differs from source by chance.
-- columns:
--   method, group   the method; the group, or all
--   wer             mean of the domains' WER, %
--   interval        its bootstrap interval (95 %), %; empty where the statistics are not computed
--   change          WER over the utterances that source has too, less that of source, points
--   margin          half the width of its interval, points
--   change_percent  100 × change / WER of source over the same utterances; without statistics, of wer over all of them
--   p               of a sign-flip test of the change, two-sided
--   wtl             wins, ties and losses: utterances with fewer word errors than source, with as many, with more
--   in_error        utterances in error, which are in no rate
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
