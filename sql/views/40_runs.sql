-- runs: every run, its configuration and its progress.
-- grain: one row per run.
--   run_id, suite, plan_id, created_at   the run; created_at in UTC
--   model, model_digest, algorithm_version, versions, git_commit, host   model, code and machine
--   model_revision  the commit of a model from the hub; NULL for a folder
--   suite_toml      the suite as recorded
--   state           complete (every planned utterance is done) or incomplete
--   cells, complete cells: planned, complete
--   planned, done, in_error, reused   utterances: planned, done, in error, done and reused from another cell
--   audio_seconds   seconds of speech done
--   seconds         wall seconds spent on them
WITH
progress AS (
    SELECT
        run_id,
        count(*) AS cells,
        count(*) FILTER (state = 'complete') AS complete,
        sum(planned)::BIGINT AS planned,
        sum(done)::BIGINT AS done,
        sum(in_error)::BIGINT AS in_error,
        sum(reused)::BIGINT AS reused,
        sum(audio_seconds) AS audio_seconds,
        sum(seconds) AS seconds
    FROM cells
    GROUP BY run_id
)

SELECT
    run_id,
    recorded.suite,
    recorded.plan_id,
    recorded.created_at,
    recorded.model,
    recorded.model_digest,
    nullif(regexp_extract(recorded.suite_toml, '\nmodel = \{[^\n]*?\brevision = "([^"\n]*)"', 1), '') AS model_revision,
    recorded.algorithm_version,
    recorded.versions,
    recorded.git_commit,
    recorded.host,
    recorded.suite_toml,
    CASE WHEN progress.complete = progress.cells THEN 'complete' ELSE 'incomplete' END AS state,
    coalesce(progress.cells, 0) AS cells,
    coalesce(progress.complete, 0) AS complete,
    coalesce(progress.planned, 0) AS planned,
    coalesce(progress.done, 0) AS done,
    coalesce(progress.in_error, 0) AS in_error,
    coalesce(progress.reused, 0) AS reused,
    progress.audio_seconds,
    progress.seconds
FROM raw.runs AS recorded
LEFT JOIN progress USING (run_id)
