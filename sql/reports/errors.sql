-- errors: the most frequent word errors of each method, and their frequency with the unadapted model.
-- columns:
--   method         the method
--   kind           substitution, deletion or insertion
--   reference      the word in the reference; empty for an insertion
--   hypothesis     the word in the hypothesis; empty for a deletion
--   count          number of occurrences, over all seeds of the method
--   source_count   number of occurrences with the method source, times the method's seeds; empty if the run
--                  has no source
--   added          count - source_count
--   utterances     utterances in which the error occurs
--   percent        percentage of the method's errors
-- param run_id: the run; the newest by default
-- param method: only this method
-- param group: only this group
-- param domain: only this domain
-- param kind [substitution|deletion|insertion]: only this kind
-- param limit = 10 [number]: rows per method
WITH
seeds_of AS (
    SELECT method, greatest(count(DISTINCT seed), 1) AS seeds
    FROM planned
    WHERE run_id = getvariable('run_id')
    GROUP BY method
),

counted AS (
    SELECT
        method,
        kind,
        reference,
        hypothesis,
        count(*) AS count,
        count(DISTINCT (domain, utterance_id)) AS utterances,
        any_value(seeds) AS seeds
    FROM edits
    INNER JOIN seeds_of USING (method)
    WHERE
        run_id = getvariable('run_id')
        AND method IN (coalesce(getvariable('method'), method), 'source')
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
    GROUP BY method, kind, reference, hypothesis
),

planned_source AS (
    SELECT count(*) > 0 AS is_there
    FROM planned
    WHERE run_id = getvariable('run_id') AND method = 'source'
),

with_source AS (
    SELECT
        *,
        seeds * coalesce(
            max(count) FILTER (method = 'source') OVER (PARTITION BY kind, reference, hypothesis), 0
        ) AS source_count,
        100.0 * count / sum(count) OVER (PARTITION BY method) AS percent
    FROM counted
),

ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY method ORDER BY count DESC, reference NULLS LAST, hypothesis NULLS LAST
        ) AS position
    FROM with_source
    WHERE
        kind = coalesce(getvariable('kind'), kind)
        AND method = coalesce(getvariable('method'), method)
)

SELECT
    ranked.method,
    ranked.kind,
    ranked.reference,
    ranked.hypothesis,
    ranked.count,
    CASE WHEN planned_source.is_there THEN ranked.source_count END AS source_count,
    CASE WHEN planned_source.is_there THEN ranked.count - ranked.source_count END AS added,
    ranked.utterances,
    ranked.percent
FROM ranked
CROSS JOIN planned_source
LEFT JOIN methods ON ranked.method = methods.method
WHERE ranked.position <= getvariable('limit')::BIGINT
ORDER BY methods.rank NULLS LAST, ranked.method, ranked.position
