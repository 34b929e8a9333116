-- windows: the windows of utterances that were cut or whose language was detected.
-- grain: one row per window of an utterance of the attempts that count.
--   run_id, "group", domain, method, cell_id, utterance_id, attempt   the utterance's row in utterances
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
    cell_id,
    utterance_id,
    attempt,
    heard."window",
    heard.begins,
    heard.seconds,
    utterances.language AS spoken,
    heard.language,
    heard.language_probability,
    heard.hypothesis,
    heard.source_hypothesis,
    heard.entropy_before,
    heard.entropy_after,
    heard.tokens,
    heard.updates,
    heard.flags,
    heard.error
FROM raw.windows AS heard
INNER JOIN utterances USING (run_id, domain, method, cell_id, utterance_id, attempt)
