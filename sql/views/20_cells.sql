-- cells: the progress and the figures of each planned cell.
-- grain: one row per planned cell (run, domain, method, seed).
-- Whether too many utterances are in error is decided by the newest attempt that reached the end of the cell. An attempt
-- that ended earlier, for example by a signal or for lack of memory, does not make a complete cell failed.
--   run_id, position, "group", domain, method, seed, cell_id, corpus_id   as in planned
--   state           complete (every planned utterance is done, and not too many are in error), failed (not complete,
--                   and the newest attempt failed), partial, missing; an attempt that was interrupted or whose machine
--                   died does not count as failed
--   planned         planned utterances
--   done            utterances that are done, including those in error
--   in_error        utterances in error, excluded from all rates, or counted as deleted
--   reused          utterances done whose results are reused from another cell
--   scorer          the scorer
--   words, errors   over the utterances in the rates, without audio that has no speech
--   substitutions, deletions, insertions   the errors by kind
--   wer             100 × errors / words; NULL while hidden
--   cer             the same for characters
--   scored          utterances in the rates
--   wrong           those with an error
--   over_100        those with more errors than words
--   insertion_runs  utterances with 5 insertions or more side by side
--   loops           utterances whose hypothesis repeats one phrase, or is empty (flag collapsed)
--   silent_seconds, silent_insertions   audio without speech (an empty reference), in seconds, and its hypothesis words
--   source_wer      wer of the method source on the same domain
--   change_percent  100 × (wer − source_wer) / source_wer
--   entropy_before, entropy_after   mean over utterances, nats per token
--   audio_seconds   seconds of speech
--   seconds         wall seconds spent on the rows that count
--   reason_hidden   why wer and cer are hidden: utterances are not scored by this scorer yet; two normalizers scored
--                   utterances of one language, or two releases of the normalizers the run, so means would mix them
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
        error IS NULL AS fine,
        words IS NOT NULL AS counted,
        coalesce(words = 0, false) AS silent,
        count(*) AS utterances,
        count(*) FILTER (attempt = 0) AS reused,
        sum(words) AS words,
        sum(errors) AS errors,
        sum(substitutions) AS substitutions,
        sum(deletions) AS deletions,
        sum(insertions) AS insertions,
        sum(characters) AS characters,
        sum(character_errors) AS character_errors,
        count(*) FILTER (errors > 0) AS wrong,
        count(*) FILTER (errors > words) AS over_100,
        count(*) FILTER (insertion_run >= 5) AS insertion_runs,
        count(*) FILTER (list_contains(flags, 'collapsed')) AS loops,
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
        coalesce(sum(utterances) FILTER (NOT fine), 0)::BIGINT AS in_error,
        sum(reused)::BIGINT AS reused,
        sum(utterances) FILTER (fine AND NOT counted)::BIGINT AS unscored,
        -- One normalizer scores each language, so there are as many pairs as languages.
        CASE
            WHEN unscored > 0 THEN unscored || ' of ' || done || ' utterances are not scored by this scorer yet'
            WHEN
                count(DISTINCT normalizer || ' ' || language) FILTER (fine AND counted)
                > count(DISTINCT language) FILTER (fine AND counted)
                THEN 'scored by ' || string_agg(DISTINCT normalizer, ', ' ORDER BY normalizer) FILTER (fine AND counted)
        END AS reason_hidden,
        CASE WHEN reason_hidden IS NULL THEN min(split_part(normalizer, '/', 2)) FILTER (fine AND counted) END AS release,
        CASE
            WHEN reason_hidden IS NULL THEN max(split_part(normalizer, '/', 2)) FILTER (fine AND counted)
        END AS last_release,
        sum(words) FILTER (counted) AS words,
        sum(errors) FILTER (NOT silent) AS errors,
        sum(substitutions) FILTER (NOT silent) AS substitutions,
        sum(deletions) FILTER (NOT silent) AS deletions,
        sum(insertions) FILTER (NOT silent) AS insertions,
        sum(characters) FILTER (counted) AS characters,
        sum(character_errors) FILTER (NOT silent) AS character_errors,
        sum(utterances) FILTER (counted) AS scored,
        sum(wrong) AS wrong,
        sum(over_100) FILTER (NOT silent) AS over_100,
        sum(insertion_runs) AS insertion_runs,
        sum(loops) FILTER (fine) AS loops,
        sum(audio_seconds) FILTER (silent) AS silent_seconds,
        sum(insertions) FILTER (silent) AS silent_insertions,
        sum(entropy_before.sum) FILTER (fine) / sum(entropy_before.count) FILTER (fine) AS entropy_before,
        sum(entropy_after.sum) FILTER (fine) / sum(entropy_after.count) FILTER (fine) AS entropy_after,
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
                    || max(last_release) OVER whole || ' of the normalizer; score it again with emtta score'
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
        planned.scorer,
        found.words::BIGINT AS words,
        found.errors::BIGINT AS errors,
        found.substitutions::BIGINT AS substitutions,
        found.deletions::BIGINT AS deletions,
        found.insertions::BIGINT AS insertions,
        found.scored::BIGINT AS scored,
        found.wrong::BIGINT AS wrong,
        found.over_100::BIGINT AS over_100,
        found.insertion_runs::BIGINT AS insertion_runs,
        found.loops::BIGINT AS loops,
        found.silent_seconds,
        found.silent_insertions::BIGINT AS silent_insertions,
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
    scorer,
    words,
    errors,
    substitutions,
    deletions,
    insertions,
    wer,
    cer,
    scored,
    wrong,
    over_100,
    insertion_runs,
    loops,
    silent_seconds,
    silent_insertions,
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
