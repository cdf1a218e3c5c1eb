"""Masked sums: a server adds whole numbers of clients that it cannot read, and learns their sum alone.

```
advertise ─▶ roster ─▶ share ─▶ inbox ─▶ mask ─▶ request ─▶ unmask ─▶ sum       up ─▶ down, four times; all of it bytes
```
Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017, with the k-neighbour
graph of Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020.
"""

from __future__ import annotations

from fl_mobile.secure_sum.client import MaskedClient
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.secure_sum.server import MaskedServer
from fl_mobile.secure_sum.terms import SumTerms, neighbours_for

__all__ = ["MaskPlan", "MaskedClient", "MaskedServer", "SumTerms", "neighbours_for"]
