-- utterances: the results per utterance, from which every figure is computed.
-- grain: one row per utterance of a planned cell that is done, in error or not.
-- A row counts if it has the plan's cell_id, and a score or an error. Among an utterance's rows
-- over all attempts, the newest without an error counts, otherwise the newest. So the work of a stopped attempt counts
-- together with what its successor added, and a failed attempt removes nothing. Its score is the newest by
-- planned.scorer.
--   run_id, "group", domain, method, seed, cell_id   the cell
--   utterance_id          the utterance
--   attempt               the attempt that wrote the row that counts; 0 if the result is reused from another cell
--   language, speaker     its language and speaker
--   metadata              JSON object: further columns of the manifest or data set, as in metadata ->> 'accent'
--   audio_seconds         length of the waveform
--   reference, hypothesis, source_hypothesis   unnormalized: transcript, adapted and unadapted model's hypothesis (in a
--                         stream, that before the utterance's updates)
--   hits, substitutions, deletions, insertions words, after normalization; NULL if in error, unless errors are counted
--   insertion_run         the most insertions side by side
--   words                 words of the reference, 0 for audio without speech; NULL if it counts in no rate, being in
--                         error or not scored by this scorer yet
--   reference_words       the same, whether or not it counts in a rate
--   errors                substitutions + deletions + insertions
--   characters, character_errors               the same by character
--   wer                   100 × errors / words of this utterance; do not average it, sum errors and words instead
--   scorer                the scorer
--   entropy_before, entropy_after              mean entropy along the greedy hypothesis, nats per token
--   tokens                tokens of the hypothesis
--   seconds               wall seconds spent
--   flags                 truncated, collapsed; gated, reverted: the hypothesis is the source's;
--                         reset: a stream was reset to the source model before the utterance
--   position              number of the utterance in its stream, from 0; NULL for an episode
--   normalizer, reference_normalized, hypothesis_normalized   the texts as compared
--   step_substitutions, step_deletions, step_insertions   words after 0, 1, … updates
--   step_errors           their sums
--   error                 why it has no score; such rows are excluded from all rates, or count as deleted
WITH
-- For runs with rows outside packs: join each hypothesis with its score, and choose the row that counts.
newest AS (
    SELECT
        hypotheses.* EXCLUDE (seed),
        scores.* EXCLUDE (run_id, domain, method, seed, cell_id, attempt, utterance_id, error),
        scores.error AS score_error
    FROM open.hypotheses AS hypotheses
    SEMI JOIN planned USING (run_id, domain, method, cell_id)
    LEFT JOIN open.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE hypotheses.error IS NOT NULL OR scores.normalizer IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY run_id, domain, method, cell_id, utterance_id
        ORDER BY coalesce(hypotheses.error, scores.error) IS NULL DESC, attempt DESC
    ) = 1
),

-- A pack has both side by side, and marks the rows that count.
packed AS (
    SELECT * EXCLUDE (seed, counts)
    FROM settled.utterances
    WHERE counts
),

counted AS (
    FROM newest
    UNION ALL BY NAME
    FROM packed
),

-- The newest rescoring by each scorer.
rescored AS (
    SELECT *
    FROM raw.rescores
    QUALIFY row_number() OVER (
        PARTITION BY run_id, domain, method, cell_id, attempt, utterance_id, scorer
        ORDER BY scoring DESC
    ) = 1
),

scored AS (
    SELECT
        run_id,
        planned."group",
        domain,
        method,
        planned.seed,
        cell_id,
        counted.utterance_id,
        counted.attempt,
        counted.language,
        counted.speaker,
        counted.audio_seconds,
        coalesce(again.reference, counted.reference) AS reference,
        counted.hypothesis,
        counted.source_hypothesis,
        counted.entropy_before,
        counted.entropy_after,
        counted.tokens,
        counted.seconds,
        counted.flags,
        counted.position,
        counted.metadata,
        planned.scorer,
        -- which score counts: the one of a rescoring, the one made with the hypothesis, or none by this scorer
        CASE WHEN again.scoring IS NOT NULL THEN 2 WHEN counted.scorer = planned.scorer THEN 1 ELSE 0 END AS origin,
        CASE origin WHEN 2 THEN again.hits WHEN 1 THEN counted.hits END AS hits,
        CASE origin WHEN 2 THEN again.substitutions WHEN 1 THEN counted.substitutions END AS substitutions,
        CASE origin WHEN 2 THEN again.deletions WHEN 1 THEN counted.deletions END AS deletions,
        CASE origin WHEN 2 THEN again.insertions WHEN 1 THEN counted.insertions END AS insertions,
        CASE origin WHEN 2 THEN again.insertion_run WHEN 1 THEN counted.insertion_run END AS insertion_run,
        CASE origin WHEN 2 THEN again.words WHEN 1 THEN counted.words END AS reference_words,
        CASE origin WHEN 2 THEN again.characters WHEN 1 THEN counted.characters END AS characters,
        CASE origin WHEN 2 THEN again.character_errors WHEN 1 THEN counted.character_errors END AS character_errors,
        CASE origin WHEN 2 THEN again.normalizer WHEN 1 THEN counted.normalizer END AS normalizer,
        CASE origin WHEN 2 THEN again.reference_normalized WHEN 1 THEN counted.reference_normalized END AS reference_normalized,
        CASE origin WHEN 2 THEN again.hypothesis_normalized WHEN 1 THEN counted.hypothesis_normalized END AS hypothesis_normalized,
        CASE origin WHEN 2 THEN again.step_substitutions WHEN 1 THEN counted.step_substitutions END AS step_substitutions,
        CASE origin WHEN 2 THEN again.step_deletions WHEN 1 THEN counted.step_deletions END AS step_deletions,
        CASE origin WHEN 2 THEN again.step_insertions WHEN 1 THEN counted.step_insertions END AS step_insertions,
        coalesce(counted.error, CASE origin WHEN 2 THEN again.error WHEN 1 THEN counted.score_error END) AS error,
        coalesce(counted.error, CASE origin WHEN 2 THEN again.error WHEN 1 THEN counted.score_error END) IS NULL
        OR planned.counts_errors AS is_counted
    FROM counted
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    LEFT JOIN rescored AS again
        ON run_id = again.run_id
        AND domain = again.domain
        AND method = again.method
        AND cell_id = again.cell_id
        AND counted.attempt = again.attempt
        AND counted.utterance_id = again.utterance_id
        AND planned.scorer = again.scorer
)

SELECT
    run_id,
    "group",
    domain,
    method,
    seed,
    cell_id,
    utterance_id,
    attempt,
    language,
    speaker,
    metadata,
    audio_seconds,
    reference,
    hypothesis,
    source_hypothesis,
    CASE WHEN is_counted THEN hits END AS hits,
    CASE WHEN is_counted THEN substitutions END AS substitutions,
    CASE WHEN is_counted THEN deletions END AS deletions,
    CASE WHEN is_counted THEN insertions END AS insertions,
    insertion_run,
    CASE WHEN is_counted THEN reference_words END AS words,
    reference_words,
    CASE WHEN is_counted THEN substitutions + deletions + insertions END AS errors,
    CASE WHEN is_counted THEN characters END AS characters,
    CASE WHEN is_counted THEN character_errors END AS character_errors,
    CASE WHEN is_counted THEN 100.0 * (substitutions + deletions + insertions) / nullif(reference_words, 0) END AS wer,
    entropy_before,
    entropy_after,
    tokens,
    seconds,
    flags,
    position,
    scorer,
    normalizer,
    reference_normalized,
    hypothesis_normalized,
    step_substitutions,
    step_deletions,
    step_insertions,
    list_transform(
        step_substitutions, lambda count, step: count + step_deletions[step] + step_insertions[step]
    ) AS step_errors,
    error
FROM scored
