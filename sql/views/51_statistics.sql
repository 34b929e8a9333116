-- statistics: intervals, tests against source, wins and losses.
-- grain: one row per run, method and domain, and one per run, method and group (domain NULL), the group `all` included.
-- A method whose results changed after its statistics were computed has no row until they are recomputed.
--   run_id, method  the run and the method
--   "group"         the domain's group; for a mean over domains, that group or all
--   domain          the domain; NULL for the mean over the domains of a group
--   utterances      utterances without an error
--   pairs           utterances that source also has without an error; NULL for source, or if the run has none
--   units, drawn    number and kind of the units of intervals and tests: `utterances`, `speakers`, or `both`
--   note            what the intervals do not cover; NULL if all units are speakers
--   wer             word error rate, %; for a group, the mean over its domains
--   wer_low, wer_high         its bootstrap interval; NULL with fewer than 5 units
--   source_wer      word error rate of source over the pairs; for source, its own
--   change          wer over the pairs minus source_wer, points; NULL for source
--   change_low, change_high   its interval
--   change_percent  100 × change / source_wer: the relative change; below 0 is better; NULL for source
--   p               p-value of the two-sided test that the mean change is 0, which decides; for a domain,
--                   Holm-corrected over the method's domains
--   p_sign_flip     p-value of the two-sided sign-flip test that method and source can be exchanged; likewise
--   wins, ties, losses        pairs with fewer word errors than source, equally many, more
--   confidence      confidence level of the intervals, such as 0.95
SELECT
    run_id,
    method,
    computed."group",
    computed.domain,
    computed.utterances,
    computed.pairs,
    computed.units,
    computed.drawn,
    computed.note,
    computed.wer,
    computed.wer_low,
    computed.wer_high,
    CASE WHEN method = 'source' THEN computed.wer ELSE computed.baseline_wer END AS source_wer,
    computed.change,
    computed.change_low,
    computed.change_high,
    100.0 * computed.change / nullif(computed.baseline_wer, 0) AS change_percent,
    computed.p,
    computed.p_sign_flip,
    computed.wins,
    computed.ties,
    computed.losses,
    computed.confidence
FROM raw.statistics AS computed
INNER JOIN revisions USING (run_id, method, revision)
WHERE coalesce(computed.baseline, 'source') = 'source'
