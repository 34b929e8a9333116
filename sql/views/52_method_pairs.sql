-- method_pairs: each pair of methods of a run, tested against each other.
-- grain: one row per run, group and pair of methods that are complete in the group, the group `all` included.
-- A pair with a method whose results changed afterwards has no row until it is recomputed.
--   run_id, "group" the run; the group, or all
--   baseline, method   the pair: the method, and the one it is compared with, which is source or precedes it
--   pairs           utterances that both have without an error
--   drawn           kind of the units: `utterances`, `speakers`, or `both`
--   note            what the interval does not cover; NULL if all units are speakers
--   baseline_wer, wer         word error rates over the pairs, %: means over the group's domains
--   change          wer minus baseline_wer, points
--   change_low, change_high   its interval
--   p               p-value of the two-sided test that the mean change is 0, Holm-corrected over the group's pairs
--   p_sign_flip     p-value of the two-sided sign-flip test that the two can be exchanged, likewise
--   verdict         better or worse if p is significant at 1 - confidence, otherwise not distinguishable
--   wins, ties, losses        pairs with fewer word errors than the baseline, equally many, more
--   confidence      confidence level of the interval, such as 0.95
WITH known AS (FROM revisions)

SELECT
    run_id,
    computed."group",
    computed.baseline,
    method,
    computed.pairs,
    computed.drawn,
    computed.note,
    computed.baseline_wer,
    computed.baseline_wer + computed.change AS wer,
    computed.change,
    computed.change_low,
    computed.change_high,
    computed.p_between AS p,
    computed.p_sign_flip_between AS p_sign_flip,
    CASE
        WHEN computed.p_between > 1 - computed.confidence OR computed.change = 0 THEN 'not distinguishable'
        WHEN computed.change < 0 THEN 'better'
        ELSE 'worse'
    END AS verdict,
    computed.wins,
    computed.ties,
    computed.losses,
    computed.confidence
FROM raw.statistics AS computed
INNER JOIN known USING (run_id, method, revision)
INNER JOIN known AS base
    ON run_id = base.run_id
    AND computed.baseline = base.method
    AND computed.baseline_revision = base.revision
WHERE computed.domain IS NULL
