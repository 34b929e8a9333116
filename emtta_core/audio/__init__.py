"""Audio: reading, levels, noise at a signal-to-noise ratio, and the corruptions that a suite can name."""
