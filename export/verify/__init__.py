"""Proof that an artifact is the model."""
