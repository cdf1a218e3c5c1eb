"""A run: the loop, its folder on disk, and what is made of it at the end."""
