"""What client and server agree on before the first round; the same for a whole run, and known to both ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from fl_mobile.algorithms import Algorithm
from fl_mobile.codecs.base import Codec
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.tensors import Spec, Tensors
from fl_mobile.wire.lattice import Lattice
from fl_mobile.wire.pruning_mask import PruningPlan, sparsity_at, zero_runs

MEMORIES = ("none", "error-feedback", "cafe")
"""Who remembers what a lossy upload codec leaves out; see `client.feedback`."""


@dataclass(frozen=True)
class Agreement:
    """The terms of a federation.

    Attributes:
        spec: The tensors that travel.
        initial: Their first values: model version 0, which ships with the app.
        algorithm: What both ends do beside averaging.
        upload: Codec of client updates; the server may publish another step of it in a round.
        download: Codec of whole models, and of what the algorithm sends beside them.
        memory: One of `MEMORIES`.
        delta_step: Models travel as differences on a lattice of this fineness (`wire.lattice`); 0: whole ones do.
        forward: Whether differences may also travel as the sums that rounds added (`wire.forward`); needs `sketch`
            uploads, and that every step is a multiple of a mean of them.
        pruning: Which weights become zero in which round.
        seed: Keys the rounding of what the server encodes.
        bare_packets: Whether updates travel without examples and loss: under differential privacy all that leaves a
            client is charged or stays there, and under masks nothing stands beside the masked payload.
        local_noise: What every client adds to its own update before it is encoded; None adds nothing.
        share_noise: What every client adds a share of to its numbers before it masks them; None adds nothing.
        masks: How uploads are added under masks, `server.masked`; None: the server reads single updates.
    """

    spec: Spec
    initial: Tensors
    algorithm: Algorithm
    upload: Codec
    download: Codec
    memory: str = "none"
    delta_step: float = 0.0
    pruning: PruningPlan = field(default_factory=PruningPlan)
    seed: int = 0
    bare_packets: bool = False
    forward: bool = False
    local_noise: LocalNoise | None = None
    share_noise: ShareNoise | None = None
    masks: MaskPlan | None = None

    def lattice(self, version: int) -> Lattice | None:
        """Returns the points that model version ``version`` can take; None where whole models travel."""
        if not self.delta_step:
            return None
        runs = zero_runs(self.pruning, self.spec) if sparsity_at(self.pruning, version) else {}
        return Lattice.around(self.initial, self.spec, self.delta_step, runs)

    @cached_property
    def beside_spec(self) -> Spec:
        """Shapes of the slot that the algorithm sends beside the model: of its trainable tensors, or of nothing."""
        return {path: t for path, t in self.spec.items() if t.trainable} if self.algorithm.sends else {}
