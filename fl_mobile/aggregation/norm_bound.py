"""The mean of updates none of which is longer than the median one: nobody shouts louder than half of the others.

Sun et al., "Can you really backdoor federated learning?", arXiv 1911.07963, with the bound that Andrew et al.
("Differentially private learning with adaptive clipping", NeurIPS 2021) find best, the median of the norms, taken anew
in every round: as long as fewer than half lie, it lies between two honest norms.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.aggregation.single import Values, Verdict, WholeUpdates, middle, norms_of, shortened, summed
from fl_mobile.tensors import Spec


def norm_bound(spec: Spec) -> WholeUpdates:
    """Returns the rule."""
    return WholeUpdates(spec, bounded_mean)


def bounded_mean(rows: Values) -> Verdict:
    """Returns the mean of the rows, each scaled down to the median of their norms.

    >>> bounded_mean(np.array([[1.0], [2.0], [300.0]])).value.tolist()
    [1.6666666666666667]
    """
    norms = norms_of(rows)
    bound = middle(np.sort(norms)[:, None])[0]
    return Verdict(summed(shortened(norms, bound), rows) / len(rows), np.ones(len(rows), bool))
