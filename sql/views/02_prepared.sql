-- prepared: the prepared corpora, without their audio (which stands in raw.prepared).
-- grain: one row an utterance of a prepared corpus.
--   corpus_id     identity of the corpus, as in planned.corpus_id
--   utterance_id  the utterance
--   text          the transcript, not normalised
--   language      ISO 639-1 code
--   speaker       who speaks
--   seconds       length of the waveform
--   corruption    what was done to the clean speech; NULL for nothing
--   snr_db        signal-to-noise ratio in dB; NULL without noise
--   gain          the factor that scaled an overflowing mixture back; 1 where nothing overflowed
--   error         why there is no waveform
SELECT * EXCLUDE (audio)
FROM raw.prepared
