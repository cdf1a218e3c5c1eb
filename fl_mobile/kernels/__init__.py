"""Inner loops in machine code."""
