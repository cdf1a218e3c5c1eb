"""[train.pruning] and [train.qat]: the last rounds make the model small, on devices' data that stays where it is."""

from __future__ import annotations

from dataclasses import dataclass

from device_sim.experiment.keys import key
from fl_mobile.errors import ConfigError
from fl_mobile.wire.pruning_mask import PruningPlan


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


def check_tuning(pruning: PruningPlan, qat: Qat, rounds: int) -> None:
    """Raises `ConfigError` if a run of ``rounds`` would end before the model is as small as asked for."""
    for which, first in (("pruning.end-round", pruning.settled_round), ("qat.begin-round", qat.begin_round)):
        if first >= rounds:
            raise ConfigError(
                f"train.{which}: round {first} is never played, train.rounds is {rounds} and rounds count from 0."
                f" Give at most {rounds - 1}."
            )
