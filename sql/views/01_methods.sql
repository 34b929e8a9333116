-- methods: the methods, in the order in which tables show them.
-- grain: one row per method of the registry.
--   method     its name
--   rank       its position, from 1; methods not listed here come last
SELECT method, rank
FROM (VALUES
    ('source', 1),
    ('source-beam', 2),
    ('greedy-em', 3),
    ('em-seq', 4),
    ('em-tok', 5),
    ('em-tok-b', 6),
    ('em-tok-policy', 7),
    ('em-tok-entropy', 8),
    ('mbr', 9),
    ('em-tok-b+beam', 10),
    ('em-tok-b+mbr', 11),
    ('sgem', 12),
    ('suta', 13),
    ('cea', 14),
    ('sar', 15),
    ('pseudo-label', 16),
    ('vote-reward', 17),
    ('risk-reward', 18)
) AS listed (method, rank)
