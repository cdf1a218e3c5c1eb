"""Files that are whole or absent, and arrays read with care."""
