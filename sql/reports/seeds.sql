-- seeds: how much the WER of each method depends on the seed of its random numbers, by group and overall.
-- columns:
--   group, method   the group, or all; the method: those that draw random numbers
--   wer             mean over the seeds of the mean of the domains' WER, %
--   wer_seed_sd     standard deviation of that mean over the seeds, points; empty for fewer than two seeds
--   lowest, highest  the lowest and the highest of the seeds, %
--   seeds           the seeds
--   wer_by_seed     the mean of the domains' WER with each of them, %
--   reason_hidden   why there is no figure yet
-- param run_id: the run; the newest by default
-- param group: only this group
-- param method: only this method
WITH
drawn AS (
    SELECT method, list(DISTINCT seed ORDER BY seed) AS seeds
    FROM planned
    WHERE run_id = getvariable('run_id') AND seed IS NOT NULL
    GROUP BY method
)

SELECT
    groups."group",
    groups.method,
    groups.wer,
    groups.wer_seed_sd,
    list_min(groups.wer_by_seed) AS lowest,
    list_max(groups.wer_by_seed) AS highest,
    drawn.seeds,
    groups.wer_by_seed,
    groups.reason_hidden
FROM groups
INNER JOIN drawn ON groups.method = drawn.method
LEFT JOIN methods ON groups.method = methods.method
WHERE
    groups.run_id = getvariable('run_id')
    AND groups."group" = coalesce(getvariable('group'), groups."group")
    AND groups.method = coalesce(getvariable('method'), groups.method)
ORDER BY
    min(groups.position) OVER (PARTITION BY groups."group"),
    methods.rank NULLS LAST,
    groups.method
