-- paper: the published figures of the paper that emtta implements, with Whisper-base.
-- grain: one row per suite of the paper and method.
-- Source: Huang, Yu, Lin, Lee, "Rethinking Entropy Minimization in Test-Time Adaptation for Autoregressive Models",
-- arXiv:2605.08186. The paper gives means over the domains of a suite; figures of single domains are not published.
--   suite     as the paper calls it: LS-C (10 noises), L2-ARCTIC (6 accents), MLS (7 languages)
--   "group"   emtta's name for that group of domains
--   corpus    its corpus, as suites name it
--   domains   number of domains in the mean
--   method    the method
--   wer       mean of the domains' WER, %
SELECT suite, "group", corpus, domains, method, wer::DOUBLE AS wer
FROM (VALUES
    ('LS-C', 'noise', 'librispeech', 10, 'source', 22.53),
    ('LS-C', 'noise', 'librispeech', 10, 'greedy-em', 21.91),
    ('LS-C', 'noise', 'librispeech', 10, 'em-seq', 21.34),
    ('LS-C', 'noise', 'librispeech', 10, 'em-tok', 20.77),
    ('LS-C', 'noise', 'librispeech', 10, 'em-tok-b', 19.15),
    ('L2-ARCTIC', 'accent', 'l2arctic', 6, 'source', 19.35),
    ('L2-ARCTIC', 'accent', 'l2arctic', 6, 'greedy-em', 18.77),
    ('L2-ARCTIC', 'accent', 'l2arctic', 6, 'em-seq', 17.68),
    ('L2-ARCTIC', 'accent', 'l2arctic', 6, 'em-tok', 17.05),
    ('L2-ARCTIC', 'accent', 'l2arctic', 6, 'em-tok-b', 16.21),
    ('MLS', 'language', 'mls', 7, 'source', 24.58),
    ('MLS', 'language', 'mls', 7, 'greedy-em', 24.08),
    ('MLS', 'language', 'mls', 7, 'em-seq', 24.17),
    ('MLS', 'language', 'mls', 7, 'em-tok', 24.07),
    ('MLS', 'language', 'mls', 7, 'em-tok-b', 22.63)
) AS published (suite, "group", corpus, domains, method, wer)
