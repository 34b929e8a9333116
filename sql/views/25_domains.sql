-- domains: the figures of each method on each domain: the mean over its seeds.
-- grain: one row per run, domain and method.
-- A method that draws random numbers has a cell for each seed of the suite; every other has one cell, whose figures
-- these are. With several seeds, the rates are hidden until each of them is complete.
--   run_id, position, "group", domain, method, corpus_id   as in planned; the position of its first cell
--   seeds           number of seeds; 0 for a method that draws no random numbers
--   state           complete (each cell is), failed (one is), partial or missing
--   planned, done, in_error, reused   utterances of its cells: planned, done, in error, done and reused from another cell
--   words, errors   mean over the seeds of what each has, without the utterances in error
--   wer, cer        mean over the seeds of 100 × errors / words; NULL while hidden
--   substitution_rate, deletion_rate, insertion_rate   mean over the seeds, % of the words; wer is their sum
--   sentence_error_rate   utterances with an error, % of those in the rates
--   over_100_rate, insertion_run_rate, loop_rate   utterances with more errors than words; with 5 insertions or more
--                   side by side; whose hypothesis repeats one phrase, or is empty: % of those in the rates
--   insertions_per_minute   words inserted in audio without speech, which has no wer; NULL if there is none
--   wer_by_seed     wer of each seed, in the order of the seeds; NULL while hidden
--   wer_seed_sd     standard deviation of wer over the seeds; NULL for fewer than two
--   source_wer      wer of the method source on the same domain
--   change_percent  100 × (wer − source_wer) / source_wer
--   entropy_before, entropy_after   mean over the seeds, nats per token
--   audio_seconds, seconds          seconds of speech, and wall seconds spent, of all seeds together
--   reason_hidden   why wer and cer are hidden, as in cells, or that a seed is incomplete
WITH
by_method AS (
    SELECT
        run_id,
        min(position) AS position,
        "group",
        domain,
        method,
        min(corpus_id) AS corpus_id,
        count(seed) AS seeds,
        CASE
            WHEN bool_and(state = 'complete') THEN 'complete'
            WHEN bool_or(state = 'failed') THEN 'failed'
            WHEN sum(done) > 0 THEN 'partial'
            ELSE 'missing'
        END AS state,
        sum(planned)::BIGINT AS planned,
        sum(done)::BIGINT AS done,
        sum(in_error)::BIGINT AS in_error,
        sum(reused)::BIGINT AS reused,
        avg(words) AS words,
        avg(errors) AS errors,
        count(*) = count(coalesce(wer, CASE WHEN reason_hidden IS NULL THEN silent_seconds END)) AND (count(*) = 1 OR bool_and(state = 'complete')) AS is_shown,
        avg(wer) AS wer,
        avg(cer) AS cer,
        avg(100.0 * substitutions / nullif(words, 0)) AS substitution_rate,
        avg(100.0 * deletions / nullif(words, 0)) AS deletion_rate,
        avg(100.0 * insertions / nullif(words, 0)) AS insertion_rate,
        avg(100.0 * wrong / nullif(scored, 0)) AS sentence_error_rate,
        avg(100.0 * over_100 / nullif(scored, 0)) AS over_100_rate,
        avg(100.0 * insertion_runs / nullif(scored, 0)) AS insertion_run_rate,
        avg(100.0 * loops / nullif(scored, 0)) AS loop_rate,
        avg(60.0 * silent_insertions / silent_seconds) AS insertions_per_minute,
        list(wer ORDER BY seed) AS wer_by_seed,
        stddev_samp(wer) AS wer_seed_sd,
        avg(entropy_before) AS entropy_before,
        avg(entropy_after) AS entropy_after,
        sum(audio_seconds) AS audio_seconds,
        sum(seconds) AS seconds,
        min(reason_hidden) AS reason_hidden,
        count(*) FILTER (state <> 'complete') || ' of ' || count(*) || ' seeds incomplete' AS incomplete
    FROM cells
    GROUP BY run_id, "group", domain, method
),

shown AS (
    SELECT * REPLACE (
        CASE WHEN is_shown THEN wer END AS wer,
        CASE WHEN is_shown THEN cer END AS cer,
        CASE WHEN is_shown THEN substitution_rate END AS substitution_rate,
        CASE WHEN is_shown THEN deletion_rate END AS deletion_rate,
        CASE WHEN is_shown THEN insertion_rate END AS insertion_rate,
        CASE WHEN is_shown THEN sentence_error_rate END AS sentence_error_rate,
        CASE WHEN is_shown THEN over_100_rate END AS over_100_rate,
        CASE WHEN is_shown THEN insertion_run_rate END AS insertion_run_rate,
        CASE WHEN is_shown THEN loop_rate END AS loop_rate,
        CASE WHEN is_shown THEN insertions_per_minute END AS insertions_per_minute,
        CASE WHEN is_shown THEN wer_by_seed END AS wer_by_seed,
        CASE WHEN is_shown THEN wer_seed_sd END AS wer_seed_sd
    )
    FROM by_method
)

SELECT
    run_id,
    position,
    "group",
    domain,
    method,
    corpus_id,
    seeds,
    state,
    planned,
    done,
    in_error,
    reused,
    words,
    errors,
    wer,
    cer,
    substitution_rate,
    deletion_rate,
    insertion_rate,
    sentence_error_rate,
    over_100_rate,
    insertion_run_rate,
    loop_rate,
    insertions_per_minute,
    wer_by_seed,
    wer_seed_sd,
    max(wer) FILTER (method = 'source') OVER (PARTITION BY run_id, domain) AS source_wer,
    100.0 * (wer - source_wer) / nullif(source_wer, 0) AS change_percent,
    entropy_before,
    entropy_after,
    audio_seconds,
    seconds,
    coalesce(reason_hidden, CASE WHEN seeds > 1 AND state <> 'complete' THEN incomplete END) AS reason_hidden
FROM shown
