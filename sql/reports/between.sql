-- between: each pair of methods tested against each other, group by group and overall.
-- columns:
--   group, method, baseline   the group, or all; the pair: the method, and the one it is compared with
--   verdict         better or worse than the baseline if p is at most 0.05, otherwise not distinguishable
--   change          WER minus that of the baseline, over the utterances that both have, points
--   ci_half_width   half the width of its 95% interval, points: the interval is change ± ci_half_width
--   p               p-value of the two-sided test that the mean change is 0, Holm-corrected over the group's pairs
--   p_sign_flip     p-value of the two-sided sign-flip test that the two can be exchanged, likewise
--   wer, baseline_wer   word error rates over these utterances, %: means over the group's domains
--   wins, ties, losses  utterances with fewer word errors than the baseline, equally many, more
--   pairs           these utterances
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- cell wins_ties_losses: {wins}/{ties}/{losses}
-- param run_id: the run; the newest by default
-- param group: only this group; all by default
-- param method: only pairs with this method
SELECT
    method_pairs."group",
    method_pairs.method,
    method_pairs.baseline,
    method_pairs.verdict,
    method_pairs.change,
    (method_pairs.change_high - method_pairs.change_low) / 2 AS ci_half_width,
    method_pairs.p,
    method_pairs.p_sign_flip,
    method_pairs.wer,
    method_pairs.baseline_wer,
    method_pairs.wins,
    method_pairs.ties,
    method_pairs.losses,
    method_pairs.pairs
FROM method_pairs
LEFT JOIN methods USING (method)
LEFT JOIN methods AS base ON method_pairs.baseline = base.method
WHERE
    run_id = getvariable('run_id')
    AND "group" = coalesce(getvariable('group'), 'all')
    AND coalesce(getvariable('method'), method_pairs.method) IN (method_pairs.method, method_pairs.baseline)
ORDER BY methods.rank NULLS LAST, method_pairs.method, base.rank NULLS LAST, method_pairs.baseline
