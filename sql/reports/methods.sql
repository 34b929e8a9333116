-- methods: WER of each method in one row, with a column for each group of domains.
-- columns:
--   method          the method
--   <group>, …      mean of the group's WER over its domains, %; empty until each domain is there; in the suite's order
--   all             the same over every domain
--   change_percent  change of `all` relative to source, %
-- param run_id: the run; the newest by default
WITH
wide AS (
    -- DuckDB 2.0 looks up a PIVOT's source outside the WITH clause, so it stands here and not under a name.
    -- It orders its columns by name, so that each begins with ten digits, which are taken off below.
    PIVOT (
        SELECT method, printf('%010d', min(position) OVER (PARTITION BY "group")) || "group" AS place, wer
        FROM groups
        WHERE run_id = getvariable('run_id')
        UNION ALL
        SELECT NULL, '1000000000all', NULL  -- so that the column is there for a run without cells
    ) ON place USING first(wer) GROUP BY method
)

SELECT
    method,
    columns('^\d{10}(.*)$') AS '\1',
    100.0 * ("1000000000all" - max("1000000000all") FILTER (method = 'source') OVER ())
    / nullif(max("1000000000all") FILTER (method = 'source') OVER (), 0) AS change_percent
FROM wide
LEFT JOIN methods USING (method)
WHERE method IS NOT NULL
ORDER BY methods.rank NULLS LAST, method
