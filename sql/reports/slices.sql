-- slices: WER of each method on slices of the utterances, by any of their properties, with intervals and tests.
-- columns:
--   slice, method   the slice: a value of the property, or a range; the method
--   wer             100 × errors / words over all utterances of the slice, each the mean over the method's seeds
--   wer_low, wer_high   its 95% interval, %; speakers are drawn if the slice has five or more, otherwise utterances
--   change          WER minus that of source, points
--   ci_half_width   half the width of its 95% interval, points
--   p               p-value of the two-sided test that the mean change is 0, Holm-corrected over the method's slices
--   utterances, speakers   number of each in the slice
--   words           words of their references
--   drawn           the units of the intervals: `utterances` or `speakers`
-- cell wer: {wer:.2f} ({wer_low:.1f}–{wer_high:.1f})
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- param run_id: the run; the newest by default
-- param by = language: language, speaker, group, domain, duration, words, snr_db, source_wer, or a metadata column
-- param group: only this group
-- param method: only this method
-- of the whole store
WITH
chosen AS (
    SELECT
        method,
        utterances."group",
        domain,
        utterance_id,
        any_value(utterances.language) AS language,
        any_value(utterances.speaker) AS speaker,
        any_value(audio_seconds) AS duration,
        any_value(utterances.metadata) AS metadata,
        any_value(prepared.snr_db) AS snr_db,
        any_value(utterances.words) AS words,
        avg(utterances.errors) AS errors
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    LEFT JOIN prepared USING (corpus_id, utterance_id)
    WHERE
        run_id = getvariable('run_id')
        AND utterances.words > 0
        AND utterances."group" = coalesce(getvariable('group'), utterances."group")
    GROUP BY method, utterances."group", domain, utterance_id
),

paired AS (
    SELECT
        *,
        max(errors) FILTER (method = 'source') OVER (PARTITION BY domain, utterance_id) AS source_errors
    FROM chosen
),

valued AS (
    SELECT
        *,
        CASE getvariable('by')
            WHEN 'language' THEN language
            WHEN 'speaker' THEN nullif(speaker, '')
            WHEN 'group' THEN "group"
            WHEN 'domain' THEN domain
            WHEN 'duration' THEN duration::VARCHAR
            WHEN 'words' THEN words::VARCHAR
            WHEN 'snr_db' THEN snr_db::VARCHAR
            WHEN 'source_wer' THEN (100.0 * source_errors / words)::VARCHAR
            ELSE metadata ->> ('$."' || getvariable('by') || '"')
        END AS value,
        try_cast(value AS DOUBLE) AS number
    FROM paired
),

-- Numeric properties with more than eight values are cut into quartiles of the utterances.
quarters AS (
    SELECT list_sort(list_distinct(quantile_cont(number, [0.25, 0.5, 0.75]))) AS edges
    FROM valued
    HAVING count(number) = count(value) AND count(DISTINCT number) > 8
),

placed AS (
    SELECT
        valued.*,
        len(list_filter(quarters.edges, lambda edge: number > edge)) AS quarter
    FROM valued
    LEFT JOIN quarters ON true
),

sliced AS (
    SELECT
        *,
        CASE
            WHEN value IS NULL THEN 'unknown'
            WHEN quarter IS NULL THEN value
            ELSE
                format('{:.4g}', min(number) OVER (PARTITION BY quarter, value IS NULL))
                || ' to ' || format('{:.4g}', max(number) OVER (PARTITION BY quarter, value IS NULL))
        END AS slice
    FROM placed
),

counted AS (
    SELECT
        slice,
        method,
        min(coalesce(quarter, 0)) AS quarter,
        min(number) AS number,
        count(*) AS utterances,
        count(DISTINCT nullif(speaker, '')) AS speakers,
        sum(words)::BIGINT AS words,
        100.0 * sum(errors) / sum(words) AS wer,
        wer_interval(
            list(utterance_id ORDER BY domain, utterance_id),
            list(speaker ORDER BY domain, utterance_id),
            list(CASE WHEN method <> 'source' THEN source_errors END::DOUBLE ORDER BY domain, utterance_id),
            list(errors ORDER BY domain, utterance_id),
            list(words::DOUBLE ORDER BY domain, utterance_id)
        ) AS found
    FROM sliced
    WHERE method = coalesce(getvariable('method'), method)
    GROUP BY slice, method
),

-- Holm's correction: the smallest p is multiplied by the number of slices, the next by one less, and so on.
ranked AS (
    SELECT
        *,
        least(
            1,
            found.p * (
                count(found.p) OVER (PARTITION BY method) + 1
                - row_number() OVER (PARTITION BY method ORDER BY found.p NULLS LAST, slice)
            )
        ) AS stepped
    FROM counted
)

SELECT
    slice,
    ranked.method,
    wer,
    found.low AS wer_low,
    found.high AS wer_high,
    found.change AS change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    CASE
        WHEN found.p IS NOT NULL
            THEN max(stepped) OVER (PARTITION BY ranked.method ORDER BY found.p ROWS UNBOUNDED PRECEDING)
    END AS p,
    utterances,
    speakers,
    words,
    found.drawn AS drawn
FROM ranked
LEFT JOIN methods ON ranked.method = methods.method
ORDER BY quarter, number NULLS LAST, slice = 'unknown', slice, methods.rank NULLS LAST, ranked.method
