"""How client updates become one: a rule a file."""
