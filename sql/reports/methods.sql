-- methods: WER of each method in one row, with one column per group of domains.
-- columns:
--   method          the method
--   <group>, …      mean WER over the group's domains, %; empty until every domain is complete; in the suite's order
--   all             the same over all domains
--   change_percent  change of `all` relative to source, %
-- param run_id: the run; the newest by default
WITH
wide AS (
    -- DuckDB 2.0 looks up a PIVOT's source outside the WITH clause, so it is inlined here.
    -- It orders its columns by name, so each begins with ten digits, which are removed below.
    PIVOT (
        SELECT method, printf('%010d', min(position) OVER (PARTITION BY "group")) || "group" AS place, wer
        FROM groups
        WHERE run_id = getvariable('run_id')
        UNION ALL
        SELECT NULL, '1000000000all', NULL  -- so that the column exists for a run without cells
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
