-- groups: the figures of a group of domains, hidden until every planned domain is complete.
-- grain: one row per run, method and group; the group `all` contains every domain.
-- A domain counts as complete if its cell is complete, has an utterance without an error, and is not hidden.
--   run_id, method  the run and the method
--   "group"         the group, or all
--   position        position of the group in the plan; all is last
--   domains         planned domains
--   complete        complete domains
--   planned, done, in_error, reused   utterances: planned, done, in error, done and reused from another run
--   words, errors   over the utterances without an error
--   wer             mean of its domains' WER, as in the paper; NULL while hidden
--   pooled_wer      100 × errors / words over all its utterances; NULL while hidden
--   source_wer      wer of the method source
--   change_percent  100 × (wer − source_wer) / source_wer
--   reason_hidden   why the figures are hidden, with the incomplete domains
WITH
checked AS (
    SELECT
        *,
        state = 'complete' AND wer IS NOT NULL AS is_there,
        CASE
            WHEN reason_hidden IS NOT NULL THEN domain || ' (' || reason_hidden || ')'
            WHEN state = 'complete' THEN domain || ' (no utterance without an error)'
            ELSE domain || ' (' || done || ' of ' || planned || ' utterances)'
        END AS progress
    FROM cells
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
        sum(words)::BIGINT AS words,
        sum(errors)::BIGINT AS errors,
        CASE WHEN bool_and(is_there) THEN avg(wer) END AS wer,
        CASE WHEN bool_and(is_there) THEN 100.0 * sum(errors) / sum(words) END AS pooled_wer,
        CASE
            WHEN NOT bool_and(is_there) THEN
                count(*) FILTER (NOT is_there) || ' of ' || count(*) || ' domains incomplete: '
                || string_agg(progress, ', ' ORDER BY position) FILTER (NOT is_there)
        END AS reason_hidden
    FROM checked
    GROUP BY GROUPING SETS ((run_id, method, "group"), (run_id, method))
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
    max(wer) FILTER (method = 'source') OVER (PARTITION BY run_id, member_of) AS source_wer,
    100.0 * (wer - source_wer) / nullif(source_wer, 0) AS change_percent,
    reason_hidden
FROM summed
