-- leaderboard: WER of each method over each group of domains, and over all.
-- columns:
--   method, group   the method; the group, or all
--   domains         domains that the plan holds
--   utterances      utterances that are done, those in error included
--   in_error        utterances in error, which are in no rate
--   wer             mean of the domains' WER, %
--   pooled_wer      all errors over all words, %
--   change_percent  change of wer relative to source, %
--   withheld        why there is no figure yet
-- param run_id: the run; the newest by default
SELECT
    groups.method,
    groups."group",
    groups.domains,
    groups.done AS utterances,
    groups.in_error,
    groups.wer,
    groups.pooled_wer,
    groups.change_percent,
    groups.withheld
FROM groups
LEFT JOIN methods USING (method)
WHERE groups.run_id = getvariable('run_id')
ORDER BY methods.rank NULLS LAST, groups.method, groups.position
