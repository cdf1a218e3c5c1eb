"""[train.pruning] and [train.qat]: the last rounds make the model small, on devices' data that stays where it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from device_sim.experiment.keys import key
from fl_mobile.errors import ConfigError
from fl_mobile.wire.pruning_mask import SCHEDULES, SMALLEST_KERNEL, PruningPlan, sparsity_at


@dataclass(frozen=True)
class Pruning:
    """[train.pruning]: weights that become zero while devices train; what is zero does not travel."""

    sparsity: float = key(0.0, "share of zeros of every pruned kernel at the end; 0 is off")
    begin_round: int = key(0, "first round with zeros")
    end_round: int = key(0, "from this round on the share is sparsity; later ones train what is left")
    schedule: str = key("polynomial", f"{' | '.join(SCHEDULES)}: rise from begin-round to end-round, or at once")
    zero_run: int = key(4, "dense kernels: zeros come in runs of so many inputs, as TFLite stores them; 1 is off")
    smallest_kernel: int = key(SMALLEST_KERNEL, "kernels of fewer weights are not pruned")

    def __post_init__(self) -> None:
        self.plan()

    def plan(self) -> PruningPlan:
        """Returns the plan that server and devices share."""
        return PruningPlan(**asdict(self))

    def prunes_in(self, round_num: int) -> bool:
        """Returns whether devices get a pruned model in round ``round_num``."""
        return sparsity_at(self.plan(), round_num) > 0

    @property
    def settled_round(self) -> int:
        """First round whose model has all its zeros; 0 where nothing is pruned."""
        begins_whole = self.begin_round if self.schedule == "constant" else self.end_round
        return begins_whole if self.sparsity else 0


@dataclass(frozen=True)
class Qat:
    """[train.qat]: devices train with the rounding of the int8 artifact in every step."""

    begin_round: int = key(-1, "first round with rounding, before train.rounds; -1 is off")

    def __post_init__(self) -> None:
        if self.begin_round < -1:
            raise ConfigError(f"train.qat.begin-round must be a round, or -1 for off, got {self.begin_round}")

    @property
    def on(self) -> bool:
        """Whether any round rounds."""
        return self.begin_round >= 0

    def rounds_in(self, round_num: int) -> bool:
        """Returns whether devices train with rounding in round ``round_num``."""
        return self.on and round_num >= self.begin_round


def check_tuning(pruning: Pruning, qat: Qat, rounds: int) -> None:
    """Raises `ConfigError` if a run of ``rounds`` would end before the model is as small as asked for."""
    for which, first in (("pruning.end-round", pruning.settled_round), ("qat.begin-round", qat.begin_round)):
        if first >= rounds:
            raise ConfigError(
                f"train.{which}: round {first} is never played, train.rounds is {rounds} and rounds count from 0."
                f" Give at most {rounds - 1}."
            )
