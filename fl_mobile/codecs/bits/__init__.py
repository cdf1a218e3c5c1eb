"""Bits, fields, positions and rotations: what several codecs are made of."""
