-- steps: entropy and WER of each method after 0, 1, … updates.
-- columns:
--   method, step    the method; updates made
--   entropy         mean over utterances of the mean nats a token
--   wer             mean of the domains' WER, %; a step that was not decoded has no row
--   pooled_wer      all errors over all words, %
--   change_percent  change of wer relative to step 0, %
--   utterances      utterances that were decoded at this step
-- param run_id: the run; the newest by default
-- param group: one group alone
WITH
decoded AS (
    SELECT *
    FROM steps
    WHERE
        run_id = getvariable('run_id')
        AND "group" = coalesce(getvariable('group'), "group")
        AND errors IS NOT NULL
),

by_domain AS (
    SELECT
        method,
        step,
        domain,
        count(*) AS utterances,
        sum(entropy) AS entropy,
        count(entropy) AS entropies,
        sum(errors) AS errors,
        sum(words) AS words
    FROM decoded
    GROUP BY method, step, domain
),

by_step AS (
    SELECT
        method,
        step,
        sum(entropy) / nullif(sum(entropies), 0) AS entropy,
        avg(100.0 * errors / words) AS wer,
        100.0 * sum(errors) / sum(words) AS pooled_wer,
        sum(utterances)::BIGINT AS utterances
    FROM by_domain
    GROUP BY method, step
)

SELECT
    by_step.method,
    by_step.step,
    by_step.entropy,
    by_step.wer,
    by_step.pooled_wer,
    100.0 * (by_step.wer - begun.wer) / nullif(begun.wer, 0) AS change_percent,
    by_step.utterances
FROM by_step
LEFT JOIN (FROM by_step WHERE step = 0) AS begun USING (method)
LEFT JOIN methods USING (method)
ORDER BY methods.rank NULLS LAST, by_step.method, by_step.step
