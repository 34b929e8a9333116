-- oracle: bounds on each method's WER at the best step, chosen per utterance or once for all.
-- columns:
--   method         the method
--   utterances     utterances without an error whose states were decoded
--   source_wer     WER before the first update, %
--   wer            WER after the last update, as scored, %
--   best_step      the single step that is best for all utterances; the earliest if several tie
--   best_step_wer  WER at that step, %; chosen on the errors it is measured on, so not a prediction
--   oracle_wer     WER if each utterance stops at its own best step, or keeps its final hypothesis if that is better
--                  (a beam, or a sample), %: no stopping rule can do better
--   left           wer - oracle_wer: points that a perfect stopping rule would still gain
--   mean_oracle_step   mean of the utterances' best steps; the earliest if several tie
--   at_start, between, at_end   utterances that are best before any update, in between, only at the last
-- All rates are errors over words of these utterances, pooled over all domains and seeds.
-- param run_id: the run; the newest by default
-- param group: only this group
-- param domain: only this domain
WITH
decoded AS (
    SELECT
        method,
        words,
        errors,
        step_errors,
        list_min(step_errors) AS fewest,
        list_position(step_errors, fewest) - 1 AS step,
        len(step_errors) - 1 AS last
    FROM utterances
    WHERE
        run_id = getvariable('run_id')
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
        AND error IS NULL
        AND fewest IS NOT NULL
),

summed AS (
    SELECT
        method,
        count(*) AS utterances,
        sum(words) AS words,
        sum(errors) AS errors,
        sum(step_errors[1]) AS source_errors,
        sum(least(fewest, errors)) AS fewest,
        avg(step) AS mean_oracle_step,
        count(*) FILTER (step = 0) AS at_start,
        count(*) FILTER (step > 0 AND step < last) AS between,
        count(*) FILTER (step > 0 AND step = last) AS at_end
    FROM decoded
    GROUP BY method
),

-- An utterance that stopped early keeps its last state.
at_step AS (
    SELECT
        method,
        step.step AS step,
        sum(coalesce(step_errors[least(step.step, last) + 1], errors)) AS errors
    FROM decoded
    CROSS JOIN (SELECT unnest(range(1 + coalesce(max(last), -1))) AS step FROM decoded) AS step
    GROUP BY ALL
),

best AS (
    SELECT method, arg_min({'step': step, 'errors': errors}, (errors, step)) AS one
    FROM at_step
    WHERE step <= (SELECT max(last) FROM decoded WHERE decoded.method = at_step.method)
    GROUP BY method
)

SELECT
    summed.method,
    summed.utterances,
    100.0 * summed.source_errors / summed.words AS source_wer,
    100.0 * summed.errors / summed.words AS wer,
    best.one.step AS best_step,
    100.0 * best.one.errors / summed.words AS best_step_wer,
    100.0 * summed.fewest / summed.words AS oracle_wer,
    100.0 * (summed.errors - summed.fewest) / summed.words AS "left",
    summed.mean_oracle_step,
    summed.at_start,
    summed.between,
    summed.at_end
FROM summed
INNER JOIN best USING (method)
LEFT JOIN methods USING (method)
ORDER BY methods.rank NULLS LAST, summed.method
