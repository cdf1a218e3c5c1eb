"""`sketch`: a seeded random projection that all clients of a round share; see `codec` for its bytes."""

from __future__ import annotations

from fl_mobile.codecs.sketch.codec import Sketch, parse_sketch

__all__ = ["Sketch", "parse_sketch"]
