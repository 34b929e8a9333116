-- coverage: how much of each group is complete, method by method.
-- columns:
--   group, method             the group, or all; the method
--   domains, complete         domains: planned, complete
--   planned, done, in_error, reused   utterances: planned, done, in error, done and reused from another cell
--   done_percent              percentage of the planned utterances that is done
--   reason_hidden             the domains that are incomplete
-- param run_id: the run; the newest by default
SELECT
    groups."group",
    groups.method,
    groups.domains,
    groups.complete,
    groups.planned,
    groups.done,
    groups.in_error,
    groups.reused,
    100.0 * groups.done / nullif(groups.planned, 0) AS done_percent,
    groups.reason_hidden
FROM groups
LEFT JOIN methods USING (method)
WHERE groups.run_id = getvariable('run_id')
ORDER BY
    min(groups.position) OVER (PARTITION BY groups."group"),
    methods.rank NULLS LAST,
    groups.method
