-- windows: the windows of utterances that were cut into several, or whose language was detected.
-- grain: one row a window of an utterance of the attempts that count.
--   run_id, "group", domain, method, cell_id, utterance_id, attempt   the utterance's row in utterances
--   "window"             the window's number in the utterance, from 1
--   begins, seconds      where in the utterance it begins, and how long it is
--   spoken               language of the corpus, by which the transcript is scored
--   language             what the model was told to hear
--   language_probability of that language where the unadapted model detected it, among all; NULL where it was given
--   hypothesis, source_hypothesis   raw texts: adapted model's, unadapted model's
--   entropy_before, entropy_after   mean nats a token along the greedy hypothesis
--   tokens, updates      of its hypothesis and episode
--   flags                what to know of it: truncated, collapsed
--   error                why it has no hypothesis, as of a silent window
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
