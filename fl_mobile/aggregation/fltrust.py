"""FLTrust: clients are trusted as far as they point where the server's own update points.

Cao et al., "FLTrust: Byzantine-robust federated learning via trust bootstrapping", NDSS 2021. With g₀ the update that
the server trains on a few public examples, client i weighs max(0, cos(gᵢ, g₀)) and counts with g₀'s length:

    g = Σ wᵢ·gᵢ·‖g₀‖/‖gᵢ‖ / Σ wᵢ

Any share of liars is survived that cannot turn the sum, at the price of examples that resemble the clients' own. Those
must not be what the model is evaluated on; in a simulation they are set aside from the training part before it is
dealt out. Statistics of batch norm are those of clients with some trust; where nobody has any, nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from fl_mobile.aggregation.single import Values, Verdict, WholeUpdates, laid_out, norms_of, summed
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec, Tensors


@dataclass(frozen=True)
class Root:
    """[server] of FLTrust."""

    public_examples: int = parameter(
        100, "training examples that the server keeps for its own update; no device holds them", at_least=1
    )

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def fltrust(spec: Spec, *, reference: Tensors, public_examples: int = Root.public_examples) -> WholeUpdates:
    """Returns the rule of one round.

    Args:
        reference: The server's own update, of the same weights as the clients'.
        public_examples: How many it stands on; whoever trains it reads that.
    """
    trained = {path: t for path, t in spec.items() if t.trainable}
    return WholeUpdates(spec, partial(trusted, own=laid_out(reference, trained).astype(np.float64)))


def trusted(rows: Values, own: np.ndarray) -> Verdict:
    """Returns the mean of the rows by how far they point in the direction of ``own`` ``float64[d]``."""
    norms, length = norms_of(rows), float(norms_of(own[None])[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.einsum("ij,j->i", rows, own) / (norms * length)
    trust = np.where(norms * length > 0, np.maximum(0.0, cosines), 0.0)
    if not trust.any():
        return Verdict(np.zeros_like(own), np.zeros(len(rows), bool))
    weights = trust * length / np.where(norms > 0, norms, 1.0) / trust.sum()
    return Verdict(summed(weights, rows), trust > 0)
