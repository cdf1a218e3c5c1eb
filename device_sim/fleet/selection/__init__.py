"""Which devices are asked."""
