"""Worker processes: a cell runs in a process of its own, so that whatever ends it costs no more than its shard."""
