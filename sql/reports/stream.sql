-- stream: WER of each method over the position in its stream, a window of utterances at a time.
-- If each domain is a separate stream, a window spans all of them. Methods whose utterances are episodes are left out.
-- columns:
--   method          the method
--   first, last     positions in the stream, from 0, of the window's first and last utterance
--   wer             100 × errors / words over the utterances of the window, each the mean over the method's seeds
--   wer_low, wer_high   its 95% interval, %; speakers are drawn if the window has five or more, otherwise utterances
--   change          WER minus that of source on the same utterances, points
--   ci_half_width   half the width of its 95% interval, points
--   utterances      number of utterances with a figure
--   resets          number of resets to the source model in the window, over all seeds
--   domains         the domains of the window, or their number if there are more than three
-- cell positions: {first}–{last}
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- param run_id: the run; the newest by default
-- param window = 20 [number]: utterances per window
-- param method: only this method
WITH
stream_rows AS (
    SELECT
        method,
        domain,
        utterance_id,
        any_value(position) AS position,
        any_value(speaker) AS speaker,
        any_value(words) AS words,
        avg(errors) AS errors,
        count(*) FILTER (list_contains(flags, 'reset')) AS resets
    FROM utterances
    WHERE run_id = getvariable('run_id')
    GROUP BY method, domain, utterance_id
),

placed AS (
    SELECT
        streamed.*,
        (streamed.position // getvariable('window')::BIGINT)::BIGINT AS number,
        source.errors AS source_errors
    FROM stream_rows AS streamed
    LEFT JOIN stream_rows AS source
        ON streamed.domain = source.domain AND streamed.utterance_id = source.utterance_id AND source.method = 'source'
    WHERE streamed.position IS NOT NULL AND streamed.method = coalesce(getvariable('method'), streamed.method)
),

counted AS (
    SELECT
        method,
        number,
        min(position) AS first,
        max(position) AS last,
        100.0 * sum(errors) / sum(words) AS wer,
        wer_interval(
            list(utterance_id ORDER BY domain, position) FILTER (words > 0),
            list(speaker ORDER BY domain, position) FILTER (words > 0),
            list(source_errors::DOUBLE ORDER BY domain, position) FILTER (words > 0),
            list(errors ORDER BY domain, position) FILTER (words > 0),
            list(words::DOUBLE ORDER BY domain, position) FILTER (words > 0)
        ) AS found,
        count(*) FILTER (words > 0) AS utterances,
        sum(resets)::BIGINT AS resets,
        CASE
            WHEN count(DISTINCT domain) > 3 THEN count(DISTINCT domain) || ' domains'
            ELSE string_agg(DISTINCT domain, ', ' ORDER BY domain)
        END AS domains
    FROM placed
    GROUP BY method, number
    HAVING count(*) FILTER (words > 0) > 0
)

SELECT
    counted.method,
    first,
    last,
    wer,
    found.low AS wer_low,
    found.high AS wer_high,
    found.change AS change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    utterances,
    resets,
    domains
FROM counted
LEFT JOIN methods ON counted.method = methods.method
ORDER BY methods.rank NULLS LAST, counted.method, number
