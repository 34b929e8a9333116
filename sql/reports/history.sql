-- history: WER of each method over time: the runs of one suite with one model, by date.
-- columns:
--   created_at      when the run began, UTC
--   run_id, method  the run; the method
--   wer             mean over the group's domains, %; empty until the group is complete
--   since_last      wer minus that of the previous run, points; empty if that has no figure or has not the method
--   change_percent  change of wer relative to source in the same run, %
--   in_error        utterances in error, excluded from all rates
--   changed         what differs from the previous run: plan (domains, methods or options), weights, algorithm,
--                   versions, commit, host; after a change of plan or weights, figures are not comparable
--   reason_hidden   why there is no figure
-- param run_id: any run of the suite and model; the newest by default
-- param group: only this group of domains; all by default
-- param method: only this method
-- param nights = 30 [number]: number of runs, newest first
WITH
nights AS (
    SELECT begun.*
    FROM raw.runs AS begun
    INNER JOIN raw.runs AS chosen
        ON begun.suite = chosen.suite AND begun.model = chosen.model
    WHERE chosen.run_id = getvariable('run_id')
    ORDER BY begun.created_at DESC, begun.run_id DESC
    LIMIT getvariable('nights')::BIGINT
),

told AS (
    SELECT
        run_id,
        created_at,
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
)

SELECT
    told.created_at,
    run_id,
    method,
    groups.wer,
    -- The run before with this method may be an older one than the run before.
    CASE WHEN lag(run_id) OVER earlier = told.previous THEN groups.wer - lag(groups.wer) OVER earlier END AS since_last,
    groups.change_percent,
    groups.in_error,
    told.changed,
    groups.reason_hidden
FROM groups
INNER JOIN told USING (run_id)
LEFT JOIN methods USING (method)
WHERE
    groups."group" = coalesce(getvariable('group'), 'all')
    AND method = coalesce(getvariable('method'), method)
WINDOW earlier AS (PARTITION BY method ORDER BY told.created_at, run_id)
ORDER BY told.created_at, run_id, methods.rank NULLS LAST, method
