"""Local training: one file a way."""
