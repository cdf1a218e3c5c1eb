"""Claims of a run, computed again."""
