-- forgetting: WER of the same speech when a stream meets it first, and when it meets it again after other domains.
-- It compares two domains with the same corpus under two names if all of one comes before all of the other.
-- columns:
--   method          the method
--   domain, again   the domain that the stream reaches first; the later one with the same speech
--   wer, wer_again  word error rates of both, %, over the utterances that both have; means over the method's seeds
--   change          wer_again - wer, points: above 0 if the model has forgotten
--   ci_half_width   half the width of its 95% interval, points, from pairs of utterances
--   p               p-value of the two-sided test that the mean change is 0
--   utterances      utterances that both have
--   between         utterances of the stream between the two
-- cell change: {change:+.2f} ± {ci_half_width:.1f}
-- param run_id: the run; the newest by default
-- param method: only this method
WITH
stream_rows AS (
    SELECT
        planned.corpus_id,
        method,
        domain,
        utterance_id,
        any_value(utterances.position) AS position,
        any_value(speaker) AS speaker,
        any_value(words) AS words,
        avg(errors) AS errors
    FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE
        run_id = getvariable('run_id')
        AND utterances.position IS NOT NULL
        AND words > 0
        AND method = coalesce(getvariable('method'), method)
    GROUP BY planned.corpus_id, method, domain, utterance_id
),

paired AS (
    SELECT
        earlier.method,
        earlier.domain,
        later.domain AS again,
        earlier.utterance_id,
        earlier.speaker,
        earlier.words,
        earlier.errors,
        later.errors AS errors_again,
        earlier.position,
        later.position AS position_again
    FROM stream_rows AS earlier
    INNER JOIN stream_rows AS later USING (corpus_id, method, utterance_id)
    WHERE earlier.domain <> later.domain
),

compared AS (
    SELECT
        method,
        domain,
        again,
        100.0 * sum(errors) / sum(words) AS wer,
        100.0 * sum(errors_again) / sum(words) AS wer_again,
        wer_interval(
            list(utterance_id ORDER BY position),
            list(speaker ORDER BY position),
            list(errors ORDER BY position),
            list(errors_again ORDER BY position),
            list(words::DOUBLE ORDER BY position)
        ) AS found,
        count(*) AS utterances,
        min(position_again) - max(position) - 1 AS "between"
    FROM paired
    GROUP BY method, domain, again
    HAVING max(position) < min(position_again)
)

SELECT
    compared.method,
    domain,
    again,
    wer,
    wer_again,
    found.change AS change,
    (found.change_high - found.change_low) / 2 AS ci_half_width,
    found.p AS p,
    utterances,
    "between"
FROM compared
LEFT JOIN methods ON compared.method = methods.method
ORDER BY methods.rank NULLS LAST, compared.method, "between", domain, again
