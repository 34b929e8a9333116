-- windows: the windows of utterances that were cut or whose language was detected.
-- grain: one row per window of an utterance of the attempts that count.
--   run_id, "group", domain, method, seed, cell_id, utterance_id, attempt   the utterance's row in utterances
--   "window"             the window's number in the utterance, from 1
--   begins, seconds      start within the utterance, and length, in seconds
--   spoken               language of the corpus, by which the transcript is scored
--   language             the language given to the model
--   language_probability its probability among all languages, if detected; NULL if it was given
--   hypothesis, source_hypothesis   unnormalized: the adapted and the unadapted model's
--   entropy_before, entropy_after   mean entropy along the greedy hypothesis, nats per token
--   tokens, updates      tokens of its hypothesis; updates of its episode
--   flags                truncated, collapsed; gated, reverted: the hypothesis is the source's
--   error                why it has no hypothesis, for example in a silent window
SELECT
    run_id,
    utterances."group",
    domain,
    method,
    utterances.seed,
    cell_id,
    utterance_id,
    attempt,
    raw_windows."window",
    raw_windows.begins,
    raw_windows.seconds,
    utterances.language AS spoken,
    raw_windows.language,
    raw_windows.language_probability,
    raw_windows.hypothesis,
    raw_windows.source_hypothesis,
    raw_windows.entropy_before,
    raw_windows.entropy_after,
    raw_windows.tokens,
    raw_windows.updates,
    raw_windows.flags,
    raw_windows.error
FROM raw.windows AS raw_windows
INNER JOIN utterances USING (run_id, domain, method, cell_id, utterance_id, attempt)
