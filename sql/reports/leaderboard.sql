-- leaderboard: WER of each method by group and overall, with the test against source.
-- columns:
--   method, group   the method; the group, or all
--   wer             mean of the domains' WER, %, each the mean over the method's seeds
--   wer_low, wer_high   its 95% bootstrap interval, %; empty if the statistics have not been computed
--   change          WER minus that of source, over the utterances that both have, points
--   ci_half_width   half the width of its 95% interval, points: the interval is change ± ci_half_width
--   p               p-value of the two-sided test that the mean change is 0
--   p_sign_flip     p-value of the sign-flip test that method and source can be exchanged
--   change_percent  100 × change / WER of source over the same utterances; without statistics, over all utterances
--   domains, complete   domains: planned, complete
--   wins, ties, losses  utterances with fewer word errors than source, equally many, more
--   in_error        utterances in error, excluded from all rates or counted as deleted, as the suite says
--   substitution_rate, deletion_rate, insertion_rate   words substituted, missing, added, % of the words of the reference
--   sentence_error_rate   utterances with an error, %
--   over_100_rate   utterances with more errors than words, %
--   insertion_run_rate   utterances with 5 insertions or more side by side, %
--   loop_rate       utterances whose hypothesis repeats one phrase, or is empty, %
--   insertions_per_minute   words inserted in audio without speech; empty if there is none
--   wer_seed_sd     standard deviation of wer over the seeds; empty for fewer than two
--   seeds           number of seeds; 0 for a method that draws no random numbers
--   reason_hidden   why there is no figure yet
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- cell domains: {complete} of {domains}
-- cell wins_ties_losses: {wins}/{ties}/{losses}
-- cell sub/del/ins: {substitution_rate:.2f}/{deletion_rate:.2f}/{insertion_rate:.2f}
-- cell wer_seed_sd: {wer_seed_sd:.2f} ({seeds} seeds)
-- optional wer_seed_sd
-- optional insertions_per_minute
-- param run_id: the run; the newest by default
SELECT
    groups.method,
    groups."group",
    groups.wer,
    found.wer_low,
    found.wer_high,
    found.change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    found.p,
    found.p_sign_flip,
    coalesce(found.change_percent, groups.change_percent) AS change_percent,
    groups.domains,
    groups.complete,
    found.wins,
    found.ties,
    found.losses,
    groups.in_error,
    groups.substitution_rate,
    groups.deletion_rate,
    groups.insertion_rate,
    groups.sentence_error_rate,
    groups.over_100_rate,
    groups.insertion_run_rate,
    groups.loop_rate,
    groups.insertions_per_minute,
    groups.wer_seed_sd,
    groups.seeds,
    groups.reason_hidden
FROM groups
LEFT JOIN (
    SELECT * FROM statistics WHERE run_id = getvariable('run_id') AND domain IS NULL
) AS found ON groups.method = found.method AND groups."group" = found."group"
LEFT JOIN methods ON groups.method = methods.method
WHERE groups.run_id = getvariable('run_id')
ORDER BY methods.rank NULLS LAST, groups.method, groups.position
