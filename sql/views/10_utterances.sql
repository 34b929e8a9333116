-- utterances: the facts, from which every figure is made.
-- grain: one row an utterance of a planned cell that is done, in error or not.
-- Rows count whose cell_id is the plan's and whose scores are there (or that are in error). Of an utterance's rows
-- over all attempts the newest without an error counts, else the newest: what a stopped attempt did still counts
-- beside what its successor added, and a failed attempt takes nothing away.
--   run_id, "group", domain, method, cell_id   the cell
--   utterance_id          the utterance
--   attempt               the attempt that made the row that counts
--   language, speaker     of the utterance
--   audio_seconds         length of the waveform
--   reference, hypothesis, source_hypothesis   raw texts: transcript, adapted model's, unadapted model's
--   hits, substitutions, deletions, insertions words, after normalisation; NULL where in error
--   words                 words of the reference
--   errors                substitutions + deletions + insertions
--   characters, character_errors               likewise by character
--   wer                   100 × errors / words of this utterance alone; never average it, sum errors and words
--   entropy_before, entropy_after              mean nats a token along the greedy hypothesis
--   tokens                tokens of the hypothesis
--   seconds               wall seconds spent
--   flags                 what to know of it: truncated, collapsed
--   normaliser, reference_normalised, hypothesis_normalised   the texts as they were compared
--   step_errors           word errors after 0, 1, … updates
--   error                 why it has no score; such a row is counted and shown, and in no rate
WITH
-- Of runs with rows outside of packs: each hypothesis finds its score, and of an utterance's rows one counts.
newest AS (
    SELECT
        heard.* EXCLUDE (error),
        scores.* EXCLUDE (run_id, domain, method, cell_id, attempt, utterance_id, error),
        coalesce(heard.error, scores.error) AS error
    FROM open.hypotheses AS heard
    SEMI JOIN planned USING (run_id, domain, method, cell_id)
    LEFT JOIN open.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE heard.error IS NOT NULL OR scores.normaliser IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY run_id, domain, method, utterance_id
        ORDER BY coalesce(heard.error, scores.error) IS NULL DESC, attempt DESC
    ) = 1
),

-- A pack has both side by side, and knows which rows count.
packed AS (
    SELECT * EXCLUDE (counts, error, score_error), coalesce(error, score_error) AS error
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
    cell_id,
    utterance_id,
    attempt,
    language,
    speaker,
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
    normaliser,
    reference_normalised,
    hypothesis_normalised,
    step_errors,
    error
FROM counted
INNER JOIN planned USING (run_id, domain, method, cell_id)
