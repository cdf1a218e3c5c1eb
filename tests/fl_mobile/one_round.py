"""One server, one thread, and packets from anywhere: drives the server role without a simulator."""

from __future__ import annotations

from collections.abc import Iterable

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import Algorithm
from fl_mobile.codecs import Codec, parse_codec
from fl_mobile.records import Assignment, FitPlan, RoundReport, ServerState
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Fold
from fl_mobile.server.step import ServerRules, folding_of, step
from fl_mobile.wire.download import Decoded


class ServerRound:
    """Everything a server knows of a round but its packets."""

    def __init__(
        self,
        state: ServerState,
        *,
        algorithm: Algorithm,
        codec: Codec,
        admission: Admission | None = None,
        plan: FitPlan | None = None,
        rule: str = "mean",
        population: int = 0,
    ) -> None:
        self.state, plan = state, plan or FitPlan()
        self.agreement = Agreement(state.spec, state.weights, algorithm, codec, parse_codec("none"))
        self.rules = ServerRules(admission or Admission(), AGGREGATORS[rule], population)
        self.assignment = Assignment(state.round_num, plan, codec, self.rules.admission.clip_norm)
        self.folding = folding_of(self.agreement, self.rules, self.assignment)

    def finish(self, folded: Fold) -> tuple[ServerState, RoundReport]:
        sends = self.agreement.algorithm.sends
        beside = dict(self.state.slots[sends]) if sends else {}
        decoded = Decoded(self.state.round_num, self.state.weights, beside=beside)
        return step(
            agreement=self.agreement,
            rules=self.rules,
            state=self.state,
            assignment=self.assignment,
            decoded=decoded,
            folded=folded,
        )

    def play(self, packets: Iterable[bytes]) -> tuple[ServerState, RoundReport]:
        return self.finish(self.folding(packets))
