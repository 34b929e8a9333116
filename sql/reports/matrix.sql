-- matrix: WER of each domain in one row, with one column per method.
-- columns:
--   domain, group   the domain and its group
--   <method>, …     WER, %, the mean over its seeds; empty until it is complete; in the order of the view methods
-- param run_id: the run; the newest by default
-- param group: only this group
WITH
chosen AS (
    SELECT *
    FROM domains
    WHERE run_id = getvariable('run_id') AND "group" = coalesce(getvariable('group'), "group")
),

wide AS (
    -- As in the report methods, each column's name begins with ten digits that determine its position.
    PIVOT (
        SELECT
            min(position) OVER (PARTITION BY domain) AS place,
            domain,
            "group",
            printf('%010d', coalesce(rank, 1000000000)) || method AS method_place,
            CASE WHEN state = 'complete' THEN wer END AS wer
        FROM chosen
        LEFT JOIN methods USING (method)
    ) ON method_place USING first(wer) GROUP BY place, domain, "group"
)

SELECT columns(* EXCLUDE (place))
FROM (SELECT columns('^(?:\d{10})?(.*)$') AS '\1' FROM wide) AS named
ORDER BY place
