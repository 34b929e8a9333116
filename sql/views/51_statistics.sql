-- statistics: how sure the figures are: intervals, each method against source, tests, wins and losses.
-- grain: one row a run, method and domain, and one a run, method and group (domain NULL), the group `all` included.
-- A method whose facts have changed since its statistics were computed has no row; the end of a run computes them anew.
--   run_id, method  the run and the method
--   "group"         the domain's group; of a mean over domains the group, or all
--   domain          the domain; NULL for the mean over the domains of a group
--   utterances      utterances without an error
--   pairs           those of them that source has without an error as well; NULL for source, and without it
--   units, drawn    what an interval draws with replacement: so many `utterances` or `speakers`, or `both`
--   wer             word error rate, %; of a group the mean over its domains
--   wer_low, wer_high         its bootstrap interval; NULL for fewer than 5 units
--   source_wer      word error rate of source over the pairs; for source itself its own
--   change          wer over the pairs less source_wer, points; NULL for source
--   change_low, change_high   its paired bootstrap interval
--   change_percent  100 × change / source_wer: the relative change, below 0 for the better; NULL for source
--   p               of a sign-flip test, two-sided; of a domain corrected by Holm over the method's domains
--   wins, ties, losses        pairs with fewer word errors than source, with as many, with more
--   confidence      of the intervals, as 0.95
SELECT
    run_id,
    method,
    computed."group",
    computed.domain,
    computed.utterances,
    computed.pairs,
    computed.units,
    computed.drawn,
    computed.wer,
    computed.wer_low,
    computed.wer_high,
    computed.source_wer,
    computed.change,
    computed.change_low,
    computed.change_high,
    100.0 * computed.change / nullif(computed.source_wer, 0) AS change_percent,
    computed.p,
    computed.wins,
    computed.ties,
    computed.losses,
    computed.confidence
FROM raw.statistics AS computed
INNER JOIN revisions USING (run_id, method, revision)
