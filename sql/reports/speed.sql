-- speed: the speed and memory use of each method.
-- columns:
--   method          the method
--   utterances      timed utterances, over all seeds of the method, excluding those in error
--   rtfx            real-time factor: seconds of speech processed per second; above 1 is faster than real time
--   times_source    wall-clock seconds for the same speech, as a multiple of those of source
--   mean_seconds    wall seconds per utterance; those of a batch are shared equally
--   p50, p95, p99   50th, 95th and 99th percentile of the seconds per utterance
--   memory_mb       peak memory in 10^6 bytes: of the device, or of the process on a CPU
--   batch_size      maximum number of utterances adapted side by side
--   device          the device it ran on
-- param run_id: the run; the newest by default
-- param group: only this group
-- param domain: only this domain
WITH
spent AS (
    SELECT
        method,
        count(*) AS utterances,
        sum(audio_seconds) AS audio_seconds,
        sum(seconds) AS seconds,
        avg(seconds) AS mean_seconds,
        quantile_cont(seconds, [0.5, 0.95, 0.99]) AS quantiles
    FROM utterances
    WHERE
        run_id = getvariable('run_id')
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
        AND error IS NULL
        AND seconds IS NOT NULL
    GROUP BY method
),

ran AS (
    SELECT
        method,
        max(peak_memory_bytes) AS peak_memory_bytes,
        max(batch_size) AS batch_size,
        string_agg(DISTINCT device, ', ' ORDER BY device) AS device
    FROM attempts
    WHERE
        run_id = getvariable('run_id')
        AND "group" = coalesce(getvariable('group'), "group")
        AND domain = coalesce(getvariable('domain'), domain)
    GROUP BY method
)

SELECT
    spent.method,
    spent.utterances,
    spent.audio_seconds / nullif(spent.seconds, 0) AS rtfx,
    (spent.seconds / spent.audio_seconds)
    / nullif(max(spent.seconds / spent.audio_seconds) FILTER (spent.method = 'source') OVER (), 0) AS times_source,
    spent.mean_seconds,
    spent.quantiles[1] AS p50,
    spent.quantiles[2] AS p95,
    spent.quantiles[3] AS p99,
    ran.peak_memory_bytes / 1e6 AS memory_mb,
    ran.batch_size,
    ran.device
FROM spent
LEFT JOIN ran USING (method)
LEFT JOIN methods USING (method)
ORDER BY methods.rank NULLS LAST, spent.method
