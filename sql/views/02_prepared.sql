-- prepared: the prepared corpora, without their audio (which is in raw.prepared).
-- grain: one row per utterance of a prepared corpus.
--   corpus_id     identity of the corpus, as in planned.corpus_id
--   utterance_id  the utterance
--   text          the transcript, not normalized
--   language      ISO 639-1 code
--   speaker       the speaker
--   seconds       length of the waveform
--   corruption    the corruption applied to the clean speech; NULL if none
--   snr_db        signal-to-noise ratio in dB; NULL if there is no noise
--   gain          the factor that scaled down a mixture beyond full scale; otherwise 1
--   metadata      JSON object: further columns of the manifest or data set, as in metadata ->> 'accent'
--   error         why there is no waveform
SELECT * EXCLUDE (audio)
FROM raw.prepared
