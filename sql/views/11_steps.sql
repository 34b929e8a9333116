-- steps: the progress of each utterance, update by update.
-- grain: one row per utterance and step of the attempts that count, excluding utterances in error.
--   run_id, "group", domain, method, seed, cell_id, utterance_id, attempt   the utterance's row in utterances
--   step               updates made so far; 0 is the unadapted model
--   hypothesis         greedy hypothesis in this state; NULL if it was not decoded
--   substitutions, deletions, insertions   word errors of that hypothesis by kind
--   errors             their sum
--   words              words of the reference
--   entropy            mean entropy along that hypothesis, nats per token
--   tokens             its tokens
--   loss, policy_loss, entropy_loss   loss of the update made from this state, and its two parts; NULL at the last
--   candidate_entropy, candidate_tokens   of its candidates: mean entropy in nats per token, mean tokens
--   advantage_std      standard deviation of its candidates' advantages
--   gradient_norm      Euclidean norm of its gradient
SELECT
    run_id,
    utterances."group",
    domain,
    method,
    utterances.seed,
    cell_id,
    utterance_id,
    attempt,
    raw_steps.step,
    raw_steps.hypothesis,
    utterances.step_substitutions[raw_steps.step + 1] AS substitutions,
    utterances.step_deletions[raw_steps.step + 1] AS deletions,
    utterances.step_insertions[raw_steps.step + 1] AS insertions,
    utterances.step_errors[raw_steps.step + 1] AS errors,
    utterances.words,
    raw_steps.entropy,
    raw_steps.tokens,
    raw_steps.loss,
    raw_steps.policy_loss,
    raw_steps.entropy_loss,
    raw_steps.candidate_entropy,
    raw_steps.advantage_std,
    raw_steps.gradient_norm,
    raw_steps.candidate_tokens
FROM raw.steps AS raw_steps
INNER JOIN utterances USING (run_id, domain, method, cell_id, utterance_id, attempt)
WHERE utterances.error IS NULL
