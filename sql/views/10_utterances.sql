-- utterances: the results per utterance, from which every figure is computed.
-- grain: one row per utterance of a planned cell that is done, in error or not.
-- A row counts if it has the plan's cell_id, and a score or an error. Of an utterance's rows
-- over all attempts, the newest without an error counts, otherwise the newest. So the work of a stopped attempt counts
-- together with what its successor added, and a failed attempt removes nothing.
--   run_id, "group", domain, method, seed, cell_id   the cell
--   utterance_id          the utterance
--   attempt               the attempt that wrote the row that counts; 0 if the result is reused from another run
--   language, speaker     its language and speaker
--   metadata              JSON object: further columns of the manifest or data set, as in metadata ->> 'accent'
--   audio_seconds         length of the waveform
--   reference, hypothesis, source_hypothesis   unnormalized: transcript, adapted and unadapted model's hypothesis
--   hits, substitutions, deletions, insertions words, after normalization; NULL if in error
--   words                 words of the reference
--   errors                substitutions + deletions + insertions
--   characters, character_errors               the same by character
--   wer                   100 × errors / words of this utterance; do not average it, sum errors and words instead
--   entropy_before, entropy_after              mean entropy along the greedy hypothesis, nats per token
--   tokens                tokens of the hypothesis
--   seconds               wall seconds spent
--   flags                 truncated, collapsed; gated, reverted: the hypothesis is the source's
--   normalizer, reference_normalized, hypothesis_normalized   the texts as compared
--   step_errors           word errors after 0, 1, … updates
--   error                 why it has no score; such rows are counted but excluded from all rates
WITH
-- For runs with rows outside packs: join each hypothesis with its score, and choose the row that counts.
newest AS (
    SELECT
        heard.* EXCLUDE (seed, error),
        scores.* EXCLUDE (run_id, domain, method, seed, cell_id, attempt, utterance_id, error),
        coalesce(heard.error, scores.error) AS error
    FROM open.hypotheses AS heard
    SEMI JOIN planned USING (run_id, domain, method, cell_id)
    LEFT JOIN open.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE heard.error IS NOT NULL OR scores.normalizer IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY run_id, domain, method, cell_id, utterance_id
        ORDER BY coalesce(heard.error, scores.error) IS NULL DESC, attempt DESC
    ) = 1
),

-- A pack has both side by side, and marks the rows that count.
packed AS (
    SELECT * EXCLUDE (seed, counts, error, score_error), coalesce(error, score_error) AS error
    FROM settled.utterances
    WHERE counts
),

counted AS (
    FROM newest
    UNION ALL BY NAME
    FROM packed
)

SELECT
    run_id,
    planned."group",
    domain,
    method,
    planned.seed,
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
    hits,
    substitutions,
    deletions,
    insertions,
    words,
    substitutions + deletions + insertions AS errors,
    characters,
    character_errors,
    100.0 * errors / nullif(words, 0) AS wer,
    entropy_before,
    entropy_after,
    tokens,
    seconds,
    flags,
    normalizer,
    reference_normalized,
    hypothesis_normalized,
    step_errors,
    error
FROM counted
INNER JOIN planned USING (run_id, domain, method, cell_id)
