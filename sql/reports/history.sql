-- history: WER of each method over the nights: the runs of one suite with one model, by date.
-- columns:
--   created_at      when the run was begun, UTC
--   run_id, method  the run; the method
--   wer             mean over the group's domains, %; empty while the group is not complete
--   since_last      wer - that of the run before, points; empty where that has no figure
--   change_percent  change of wer relative to source of the same run, %
--   in_error        utterances in error, which are in no rate
--   changed         what is not as in the run before: plan (domains, methods or options), weights, algorithm,
--                   versions, commit, host; a figure after another plan or other weights is of another experiment
--   withheld        why there is no figure
-- param run_id: a run of the suite and the model; the newest by default
-- param group: one group of domains; all by default
-- param method: one method alone
-- param nights = 30 [number]: how many runs, the newest of them
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
    groups.wer - lag(groups.wer) OVER (PARTITION BY method ORDER BY told.created_at, run_id) AS since_last,
    groups.change_percent,
    groups.in_error,
    told.changed,
    groups.withheld
FROM groups
INNER JOIN told USING (run_id)
LEFT JOIN methods USING (method)
WHERE
    groups."group" = coalesce(getvariable('group'), 'all')
    AND method = coalesce(getvariable('method'), method)
ORDER BY told.created_at, run_id, methods.rank NULLS LAST, method
