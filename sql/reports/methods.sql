-- methods: WER of each method in one row, with a column for each group of domains.
-- columns:
--   method          the method
--   <group>, …      mean of the group's WER over its domains, %; empty until each domain is there
--   all             the same over every domain
--   change_percent  change of `all` relative to source, %
-- param run_id: the run; the newest by default
WITH
wide AS (
    -- DuckDB 2.0 looks up a PIVOT's source outside the WITH clause, so it stands here and not under a name.
    PIVOT (
        SELECT method, "group", wer FROM groups WHERE run_id = getvariable('run_id')
        UNION ALL
        SELECT NULL, 'all', NULL  -- so that the column is there for a run without cells
    ) ON "group" USING first(wer) GROUP BY method
),

overall AS (
    SELECT method, change_percent FROM groups WHERE run_id = getvariable('run_id') AND "group" = 'all'
)

SELECT wide.* EXCLUDE ("all"), wide."all", overall.change_percent
FROM wide
INNER JOIN overall USING (method)
LEFT JOIN methods USING (method)
ORDER BY methods.rank NULLS LAST, method
