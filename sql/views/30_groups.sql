-- groups: the figures of a group of domains, hidden until every planned domain is complete.
-- grain: one row per run, method and group; the group `all` contains every domain.
-- A domain counts as complete if its state is complete in the view domains, has an utterance without an error, and is not hidden.
-- Domains of audio without speech have no WER, and count only for insertions_per_minute.
--   run_id, method  the run and the method
--   "group"         the group, or all
--   position        position of the group in the plan; all is last
--   domains         planned domains
--   complete        complete domains
--   planned, done, in_error, reused   utterances: planned, done, in error, done and reused from another cell
--   words, errors   sums of those of its domains, without the utterances in error
--   wer             mean of its domains' WER, as in the paper, each the mean over the seeds; NULL while hidden
--   substitution_rate, deletion_rate, insertion_rate, sentence_error_rate   means of its domains', NULL while hidden
--   over_100_rate, insertion_run_rate, loop_rate, insertions_per_minute   likewise
--   seeds           number of seeds; 0 for a method that draws no random numbers
--   wer_by_seed     wer of each seed, in the order of the seeds; NULL while hidden
--   wer_seed_sd     standard deviation of wer over the seeds; NULL for fewer than two
--   pooled_wer      100 × errors / words over all its utterances; NULL while hidden
--   source_wer      wer of the method source
--   change_percent  100 × (wer − source_wer) / source_wer
--   reason_hidden   why the figures are hidden, with the incomplete domains
WITH
checked AS (
    SELECT
        *,
        state = 'complete' AND coalesce(wer, insertions_per_minute) IS NOT NULL AS is_there,
        CASE
            WHEN reason_hidden IS NOT NULL THEN domain || ' (' || reason_hidden || ')'
            WHEN state = 'complete' THEN domain || ' (no utterance without an error)'
            ELSE domain || ' (' || done || ' of ' || planned || ' utterances)'
        END AS progress
    FROM domains
),

summed AS (
    SELECT
        run_id,
        method,
        CASE WHEN grouping("group") = 1 THEN 'all' ELSE "group" END AS member_of,
        CASE WHEN grouping("group") = 1 THEN 1000000000 ELSE min(position) END AS position,
        count(*) AS domains,
        count(*) FILTER (is_there) AS complete,
        sum(planned)::BIGINT AS planned,
        sum(done)::BIGINT AS done,
        sum(in_error)::BIGINT AS in_error,
        sum(reused)::BIGINT AS reused,
        sum(words) AS words,
        sum(errors) AS errors,
        max(seeds) AS seeds,
        list(wer_by_seed) FILTER (wer IS NOT NULL) AS by_domain,
        CASE WHEN bool_and(is_there) THEN avg(wer) END AS wer,
        CASE WHEN bool_and(is_there) THEN 100.0 * sum(errors) / nullif(sum(words), 0) END AS pooled_wer,
        CASE WHEN bool_and(is_there) THEN avg(substitution_rate) END AS substitution_rate,
        CASE WHEN bool_and(is_there) THEN avg(deletion_rate) END AS deletion_rate,
        CASE WHEN bool_and(is_there) THEN avg(insertion_rate) END AS insertion_rate,
        CASE WHEN bool_and(is_there) THEN avg(sentence_error_rate) END AS sentence_error_rate,
        CASE WHEN bool_and(is_there) THEN avg(over_100_rate) END AS over_100_rate,
        CASE WHEN bool_and(is_there) THEN avg(insertion_run_rate) END AS insertion_run_rate,
        CASE WHEN bool_and(is_there) THEN avg(loop_rate) END AS loop_rate,
        CASE WHEN bool_and(is_there) THEN avg(insertions_per_minute) END AS insertions_per_minute,
        CASE
            WHEN NOT bool_and(is_there) THEN
                count(*) FILTER (NOT is_there) || ' of ' || count(*) || ' domains incomplete: '
                || string_agg(progress, ', ' ORDER BY position) FILTER (NOT is_there)
        END AS reason_hidden
    FROM checked
    GROUP BY GROUPING SETS ((run_id, method, "group"), (run_id, method))
),

averaged AS (
    SELECT
        *,
        CASE
            WHEN wer IS NOT NULL THEN
                [list_avg([wers[seed] for wers in by_domain]) for seed in range(1, len(by_domain[1]) + 1)]
        END AS wer_by_seed
    FROM summed
)

SELECT
    run_id,
    method,
    member_of AS "group",
    position,
    domains,
    complete,
    planned,
    done,
    in_error,
    reused,
    words,
    errors,
    wer,
    pooled_wer,
    substitution_rate,
    deletion_rate,
    insertion_rate,
    sentence_error_rate,
    over_100_rate,
    insertion_run_rate,
    loop_rate,
    insertions_per_minute,
    seeds,
    wer_by_seed,
    list_aggregate(wer_by_seed, 'stddev_samp') AS wer_seed_sd,
    max(wer) FILTER (method = 'source') OVER (PARTITION BY run_id, member_of) AS source_wer,
    100.0 * (wer - source_wer) / nullif(source_wer, 0) AS change_percent,
    reason_hidden
FROM averaged
