"""Corpora: where speech and its transcripts come from."""
