"""When devices can take part."""
