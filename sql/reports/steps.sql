-- steps: entropy and WER of each method after 0, 1, … updates, hidden until every planned domain is complete.
-- columns:
--   method, step    the method; updates made
--   entropy         mean entropy over utterances, nats per token
--   wer             mean of the domains' WER, %, each the mean over the method's seeds; a step that was not decoded has no row
--   pooled_wer      all errors over all words, %
--   change_percent  change of wer relative to step 0, %
--   utterances      utterances decoded at this step, over all seeds
--   domains         complete domains: each cell has a figure, and each utterance has this step
--   planned         planned domains
--   reason_hidden   why there is no figure yet
-- param run_id: the run; the newest by default
-- param group: only this group
WITH
chosen AS (
    SELECT
        *,
        count(*) OVER (PARTITION BY domain, method) AS seeds
    FROM cells
    WHERE run_id = getvariable('run_id') AND "group" = coalesce(getvariable('group'), "group")
),

decoded AS (
    SELECT
        method,
        step,
        cell_id,
        domain,
        count(*) AS utterances,
        sum(entropy) AS entropy,
        count(entropy) AS entropies,
        sum(errors) AS errors,
        sum(words) AS words
    FROM steps
    WHERE
        run_id = getvariable('run_id')
        AND "group" = coalesce(getvariable('group'), "group")
        AND errors IS NOT NULL
    GROUP BY method, step, domain, cell_id
),

by_domain AS (
    SELECT
        method,
        step,
        domain,
        chosen.position,
        coalesce(
            chosen.reason_hidden,
            CASE WHEN chosen.seeds > 1 THEN 'seed ' || chosen.seed || ': ' ELSE '' END
            || coalesce(decoded.utterances, 0) || ' of ' || chosen.planned || ' utterances'
        ) AS progress,
        decoded.* EXCLUDE (method, step, domain, cell_id),
        coalesce(
            chosen.state = 'complete' AND chosen.wer IS NOT NULL
            AND decoded.utterances = chosen.done - chosen.in_error,
            false
        ) AS is_there
    FROM (SELECT DISTINCT method, step FROM decoded) AS reached
    INNER JOIN chosen USING (method)
    LEFT JOIN decoded USING (method, step, domain, cell_id)
),

by_step AS (
    SELECT
        method,
        step,
        CASE WHEN bool_and(is_there) THEN sum(entropy) / nullif(sum(entropies), 0) END AS entropy,
        CASE WHEN bool_and(is_there) THEN avg(100.0 * errors / words) END AS wer,
        CASE WHEN bool_and(is_there) THEN 100.0 * sum(errors) / sum(words) END AS pooled_wer,
        sum(utterances)::BIGINT AS utterances,
        count(DISTINCT domain) AS planned,
        count(DISTINCT domain) - count(DISTINCT domain) FILTER (NOT is_there) AS domains,
        CASE
            WHEN NOT bool_and(is_there) THEN
                (planned - domains) || ' of ' || planned || ' domains incomplete: '
                || string_agg(
                    domain || ' (' || progress || ')', ', ' ORDER BY position
                ) FILTER (NOT is_there)
        END AS reason_hidden
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
    by_step.utterances,
    by_step.domains,
    by_step.planned,
    by_step.reason_hidden
FROM by_step
LEFT JOIN (FROM by_step WHERE step = 0) AS begun USING (method)
LEFT JOIN methods USING (method)
ORDER BY methods.rank NULLS LAST, by_step.method, by_step.step
