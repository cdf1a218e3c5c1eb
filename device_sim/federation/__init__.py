"""Everything an experiment names, opened once."""
