-- cells: the progress and the figures of each planned cell.
-- grain: one row per planned cell (run, domain, method, seed).
-- Whether too many utterances are in error is decided by the newest attempt that reached the end of the cell. An attempt
-- that was ended before, for example by a signal or for want of memory, does not make a complete cell failed.
--   run_id, position, "group", domain, method, seed, cell_id, corpus_id   as in planned
--   state           complete (every planned utterance is done, and not too many are in error), failed (not complete,
--                   and the newest attempt failed), partial, missing; an attempt that was interrupted or whose machine
--                   died has not failed
--   planned         planned utterances
--   done            utterances that are done, including those in error
--   in_error        utterances in error, excluded from all rates
--   reused          utterances, of those done, whose results are those of another run
--   words, errors   over the utterances without an error
--   wer             100 × errors / words; NULL while hidden
--   cer             the same for characters
--   source_wer      wer of the method source on the same domain
--   change_percent  100 × (wer − source_wer) / source_wer
--   entropy_before, entropy_after   mean over utterances, nats per token
--   audio_seconds   seconds of speech
--   seconds         wall seconds spent on the rows that count
--   reason_hidden   why wer and cer are hidden: two normalizers scored utterances of one language, or two releases of
--                   the normalizers scored the run, so that its means would mix them
--   attempts        attempts that ended
--   error           why the newest attempt that ended is not complete; NULL if the cell is complete anyway
WITH
-- Sum by language and normalizer first: the queries below are slow on all rows, but not on these few.
summed AS (
    SELECT
        run_id,
        domain,
        method,
        cell_id,
        language,
        normalizer,
        error IS NULL AS scored,
        count(*) AS utterances,
        count(*) FILTER (attempt = 0) AS reused,
        sum(words) AS words,
        sum(errors) AS errors,
        sum(characters) AS characters,
        sum(character_errors) AS character_errors,
        {'sum': sum(entropy_before), 'count': count(entropy_before)} AS entropy_before,
        {'sum': sum(entropy_after), 'count': count(entropy_after)} AS entropy_after,
        sum(audio_seconds) AS audio_seconds,
        sum(seconds) AS seconds
    FROM utterances
    GROUP BY ALL
),

found AS (
    SELECT
        run_id,
        domain,
        method,
        cell_id,
        sum(utterances)::BIGINT AS done,
        coalesce(sum(utterances) FILTER (NOT scored), 0)::BIGINT AS in_error,
        sum(reused)::BIGINT AS reused,
        -- One normalizer scores each language, so there are as many pairs as languages.
        CASE
            WHEN count(*) FILTER (scored) > count(DISTINCT language) FILTER (scored)
                THEN 'scored by ' || string_agg(DISTINCT normalizer, ', ' ORDER BY normalizer) FILTER (scored)
        END AS reason_hidden,
        CASE WHEN reason_hidden IS NULL THEN min(split_part(normalizer, '/', 2)) FILTER (scored) END AS release,
        CASE WHEN reason_hidden IS NULL THEN max(split_part(normalizer, '/', 2)) FILTER (scored) END AS last_release,
        sum(words) FILTER (scored) AS words,
        sum(errors) FILTER (scored) AS errors,
        sum(characters) FILTER (scored) AS characters,
        sum(character_errors) FILTER (scored) AS character_errors,
        sum(entropy_before.sum) FILTER (scored) / sum(entropy_before.count) FILTER (scored) AS entropy_before,
        sum(entropy_after.sum) FILTER (scored) / sum(entropy_after.count) FILTER (scored) AS entropy_after,
        sum(audio_seconds) AS audio_seconds,
        sum(seconds) AS seconds
    FROM summed
    GROUP BY run_id, domain, method, cell_id
),

ended AS (
    SELECT
        run_id,
        domain,
        method,
        cell_id,
        count(*) AS attempts,
        arg_max({'state': state, 'error': error}, attempt) AS newest,  -- both from one attempt, including its NULL
        -- An attempt that its process did not survive is recorded by another, which did no utterance.
        arg_max(state, attempt) FILTER (state = 'complete' OR (done > 0 AND done + reused >= planned)) AS verdict
    FROM attempts
    GROUP BY run_id, domain, method, cell_id
),

judged AS (
    SELECT
        * EXCLUDE (reason_hidden, release, last_release),
        CASE
            WHEN reason_hidden IS NOT NULL THEN reason_hidden
            WHEN release IS NOT NULL AND min(release) OVER whole <> max(last_release) OVER whole
                THEN
                    'the run was scored by the releases ' || min(release) OVER whole || ' and '
                    || max(last_release) OVER whole || ' of the normalizer'
        END AS reason_hidden
    FROM found
    WINDOW whole AS (PARTITION BY run_id)
),

measured AS (
    SELECT
        run_id,
        planned.position,
        planned."group",
        domain,
        method,
        planned.seed,
        cell_id,
        planned.corpus_id,
        CASE
            WHEN
                coalesce(found.done, 0) >= planned.utterances
                AND (found.in_error = 0 OR ended.verdict IS DISTINCT FROM 'failed')
                THEN 'complete'
            WHEN ended.newest.state = 'failed' OR found.done >= planned.utterances THEN 'failed'
            WHEN found.done > 0 THEN 'partial'
            ELSE 'missing'
        END AS state,
        planned.utterances AS planned,
        coalesce(found.done, 0) AS done,
        coalesce(found.in_error, 0) AS in_error,
        coalesce(found.reused, 0) AS reused,
        found.words::BIGINT AS words,
        found.errors::BIGINT AS errors,
        CASE WHEN found.reason_hidden IS NULL THEN 100.0 * found.errors / nullif(found.words, 0) END AS wer,
        CASE WHEN found.reason_hidden IS NULL THEN 100.0 * found.character_errors / nullif(found.characters, 0) END AS cer,
        found.entropy_before,
        found.entropy_after,
        found.audio_seconds,
        found.seconds,
        found.reason_hidden,
        coalesce(ended.attempts, 0) AS attempts,
        ended.newest.error AS error
    FROM planned
    LEFT JOIN judged AS found USING (run_id, domain, method, cell_id)
    LEFT JOIN ended USING (run_id, domain, method, cell_id)
)

SELECT
    run_id,
    position,
    "group",
    domain,
    method,
    seed,
    cell_id,
    corpus_id,
    state,
    planned,
    done,
    in_error,
    reused,
    words,
    errors,
    wer,
    cer,
    -- A window instead of a join, because a join would read the store once more.
    max(wer) FILTER (method = 'source') OVER (PARTITION BY run_id, domain) AS source_wer,
    100.0 * (wer - source_wer) / nullif(source_wer, 0) AS change_percent,
    entropy_before,
    entropy_after,
    audio_seconds,
    seconds,
    reason_hidden,
    attempts,
    CASE WHEN state <> 'complete' THEN error END AS error
FROM measured
