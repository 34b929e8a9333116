-- history: WER of each method over time, in the runs of one suite with one model, by date, and whether it drifts.
-- columns:
--   created_at      when the run began, UTC
--   run_id, method  the run; the method
--   wer             mean over the group's domains, %; empty until the group is complete
--   since_last      wer minus that of the previous run, points; empty if that run has no figure or lacks the method
--   change_percent  change of wer relative to source in the same run, %
--   trend           worse if wer has risen steadily, none if not; or too few, with the required number of runs
--   drift           its rise over the runs watched, points: the Theil-Sen slope times their number less 1
--   z               the Mann-Kendall test of the same runs, corrected for ties: standard errors above no trend
--   watched         number of runs watched: those with the same speech and a figure, up to this one
--   in_error        utterances in error, excluded from all rates
--   changed         what differs from the previous run: plan (domains, methods or options), weights, algorithm,
--                   versions, commit, host; after a change of plan or weights, figures are not comparable
--   reason_hidden   why there is no figure
-- param run_id: any run of the suite and model; the newest by default
-- param group: only this group of domains; all by default
-- param method: only this method
-- param nights = 30 [number]: number of runs, newest first
-- param trend_nights = 30 [number]: the most runs over which a trend is sought
-- param trend_z = 3.8 [decimal]: the least z of a trend
-- param min_effect = 0.2 [effect]: the size that its drift must exceed: points, or a share of the first wer, such as 2%
-- of the whole store
WITH
begun AS (
    SELECT
        one.*,
        row_number() OVER (ORDER BY one.created_at DESC, one.run_id DESC) AS age
    FROM raw.runs AS one
    INNER JOIN raw.runs AS chosen
        ON one.suite = chosen.suite AND one.model = chosen.model
    WHERE chosen.run_id = getvariable('run_id')
),

nights AS (
    SELECT * FROM begun WHERE age <= getvariable('nights')::BIGINT + getvariable('trend_nights')::BIGINT
),

told AS (
    SELECT
        run_id,
        created_at,
        age,
        lag(run_id) OVER earlier AS previous,
        CASE
            WHEN lag(run_id) OVER earlier IS NOT NULL THEN concat_ws(
                ', ',
                CASE WHEN plan_id <> lag(plan_id) OVER earlier THEN 'plan' END,
                CASE WHEN model_digest <> lag(model_digest) OVER earlier THEN 'weights' END,
                CASE WHEN algorithm_version <> lag(algorithm_version) OVER earlier THEN 'algorithm' END,
                CASE WHEN versions <> lag(versions) OVER earlier THEN 'versions' END,
                CASE WHEN git_commit IS DISTINCT FROM lag(git_commit) OVER earlier THEN 'commit' END,
                CASE WHEN host <> lag(host) OVER earlier THEN 'host' END
            )
        END AS changed
    FROM nights
    WINDOW earlier AS (ORDER BY created_at, run_id)
),

figures AS (
    SELECT
        told.*,
        groups.method,
        groups.wer,
        groups.change_percent,
        groups.in_error,
        groups.reason_hidden,
        -- The run before with this method may be an older one than the run before.
        CASE WHEN lag(run_id) OVER earlier = told.previous THEN groups.wer - lag(groups.wer) OVER earlier END
            AS since_last
    FROM groups
    INNER JOIN told USING (run_id)
    WHERE
        groups."group" = coalesce(getvariable('group'), 'all')
        AND method = coalesce(getvariable('method'), method)
    WINDOW earlier AS (PARTITION BY method ORDER BY told.created_at, run_id)
),

speech AS (
    SELECT
        run_id,
        method,
        string_agg(DISTINCT domain || ' ' || corpus_id, ',' ORDER BY domain || ' ' || corpus_id) AS content
    FROM planned
    WHERE coalesce(getvariable('group'), 'all') IN ('all', "group") AND run_id IN (SELECT run_id FROM nights)
    GROUP BY ALL
),

-- The runs of a method over the same speech that have a figure, numbered by date.
numbered AS (
    SELECT
        run_id,
        method,
        content,
        round(wer, 6) AS wer,
        row_number() OVER (PARTITION BY method, content ORDER BY created_at, run_id) AS number
    FROM figures
    INNER JOIN speech USING (run_id, method)
    WHERE wer IS NOT NULL
),

-- For each run, the runs watched: the last `trend_nights` up to itself.
watched AS (
    SELECT
        tonight.run_id,
        tonight.method,
        night.number,
        night.wer
    FROM numbered AS tonight
    INNER JOIN numbered AS night
        ON
            tonight.method = night.method
            AND tonight.content = night.content
            AND night.number <= tonight.number
            AND night.number > tonight.number - getvariable('trend_nights')::BIGINT
),

rises AS (
    SELECT
        run_id,
        method,
        sum(sign(later.wer - sooner.wer)) AS score,
        median((later.wer - sooner.wer) / (later.number - sooner.number)) AS slope
    FROM watched AS sooner
    INNER JOIN watched AS later USING (run_id, method)
    WHERE sooner.number < later.number
    GROUP BY ALL
),

spans AS (
    SELECT
        run_id,
        method,
        sum(times)::BIGINT AS runs,
        -- The variance of the score by chance; runs of the same wer take from it (Kendall 1975, Rank Correlation
        -- Methods, chapter 4).
        (runs * (runs - 1) * (2 * runs + 5) - sum(times * (times - 1) * (2 * times + 5))) / 18 AS variance,
        arg_min(wer, first) AS wer
    FROM (
        SELECT
            run_id,
            method,
            wer,
            count(*) AS times,
            min(number) AS first
        FROM watched
        GROUP BY ALL
    )
    GROUP BY ALL
),

trends AS (
    SELECT
        run_id,
        method,
        runs,
        slope * (runs - 1) AS drift,
        CASE WHEN variance > 0 THEN (score - sign(score)) / sqrt(variance) ELSE 0 END AS z,
        CASE
            WHEN ends_with(getvariable('min_effect'), '%')
                THEN rtrim(getvariable('min_effect'), '%')::DOUBLE / 100 * wer
            ELSE getvariable('min_effect')::DOUBLE
        END AS least,
        least(10, getvariable('trend_nights')::BIGINT) AS fewest
    FROM spans
    LEFT JOIN rises USING (run_id, method)
)

SELECT
    figures.created_at,
    run_id,
    method,
    figures.wer,
    figures.since_last,
    figures.change_percent,
    CASE
        WHEN runs IS NULL THEN NULL
        WHEN runs < fewest THEN 'too few, ' || runs || ' of ' || fewest
        WHEN z >= getvariable('trend_z')::DOUBLE AND drift > trends.least THEN 'worse'
        ELSE 'none'
    END AS trend,
    CASE WHEN runs >= fewest THEN drift END AS drift,
    CASE WHEN runs >= fewest THEN z END AS z,
    runs AS watched,
    figures.in_error,
    figures.changed,
    figures.reason_hidden
FROM figures
LEFT JOIN trends USING (run_id, method)
LEFT JOIN methods USING (method)
WHERE figures.age <= getvariable('nights')::BIGINT
ORDER BY figures.created_at, run_id, methods.rank NULLS LAST, method
