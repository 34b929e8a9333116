-- speed: how fast each method was, and how much memory it took.
-- columns:
--   method          the method
--   utterances      utterances that were timed, those in error left out
--   rtfx            seconds of speech done in a second; above 1 it is faster than the speech
--   times_source    wall seconds for the same speech, as a multiple of the method source
--   mean_seconds    wall seconds an utterance: those of its batch, shared equally
--   p50, p95, p99   half, 95 %, 99 % of the utterances took no more seconds
--   memory_mb       most memory in use at once, in 10^6 bytes: of the device, or of the process on a CPU
--   batch_size      utterances side by side, at most
--   device          where it ran
-- param run_id: the run; the newest by default
-- param group: one group alone
-- param domain: one domain alone
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
