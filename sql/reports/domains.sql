-- domains: WER of each method on each domain, the test against source, and the progress.
-- columns:
--   domain, method  the domain and the method; the view domains has all of its columns
--   wer             word error rate, %; the mean over the method's seeds
--   wer_low, wer_high   its 95% bootstrap interval, %; empty if the statistics have not been computed
--   change          WER minus that of source, over the utterances that both have, points
--   ci_half_width   half the width of its 95% interval, points: the interval is change ± ci_half_width
--   p               p-value of the two-sided test that the mean change is 0, Holm-corrected over the method's domains
--   p_sign_flip     p-value of the sign-flip test that method and source can be exchanged, likewise
--   change_percent  100 × change / WER of source over the same utterances; without statistics, over all utterances
--   group           the domain's group
--   state           complete, partial, failed or missing
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
--   reason_hidden   why there is no figure though utterances are done
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- cell wins_ties_losses: {wins}/{ties}/{losses}
-- cell sub/del/ins: {substitution_rate:.2f}/{deletion_rate:.2f}/{insertion_rate:.2f}
-- cell wer_seed_sd: {wer_seed_sd:.2f} ({seeds} seeds)
-- optional wer_seed_sd
-- optional insertions_per_minute
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
SELECT
    figures.domain,
    figures.method,
    figures.wer,
    found.wer_low,
    found.wer_high,
    found.change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    found.p,
    found.p_sign_flip,
    coalesce(found.change_percent, figures.change_percent) AS change_percent,
    figures."group",
    figures.state,
    found.wins,
    found.ties,
    found.losses,
    figures.in_error,
    figures.substitution_rate,
    figures.deletion_rate,
    figures.insertion_rate,
    figures.sentence_error_rate,
    figures.over_100_rate,
    figures.insertion_run_rate,
    figures.loop_rate,
    figures.insertions_per_minute,
    figures.wer_seed_sd,
    figures.seeds,
    figures.reason_hidden
FROM domains AS figures
LEFT JOIN (
    SELECT * FROM statistics WHERE run_id = getvariable('run_id') AND domain IS NOT NULL
) AS found ON figures.domain = found.domain AND figures.method = found.method AND figures.wer IS NOT NULL
LEFT JOIN methods ON figures.method = methods.method
WHERE
    figures.run_id = getvariable('run_id')
    AND figures."group" = coalesce(getvariable('group'), figures."group")
    AND figures.method = coalesce(getvariable('method'), figures.method)
ORDER BY
    min(figures.position) OVER (PARTITION BY figures.domain),
    methods.rank NULLS LAST,
    figures.method
