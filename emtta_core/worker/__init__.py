"""Worker processes: a cell runs in a separate process, so that a crash loses no more than its current shard."""
