"""Holds a training program against Keras when it is built.

| start           | examples    | what is compared                                                                 |
|-----------------|-------------|----------------------------------------------------------------------------------|
| drawn           | drawn       | three steps of a few rows, with proximal term, correction, dropout; calm weights |
|                 |             | where steps amplify what rounding changes                                        |
| drawn           | drawn       | answers, losses, one step so large that it shows the gradient of every tensor    |
| the model's own | real, if any | answers, losses, one step                                                       |

What rounding explains is measured where it decides or is recorded: Keras plays the case again from weights one rounding
apart. A relu's corner or a tie that rounding turns moves a gradient by percents. Where that could be it, Keras plays
twice more, from weights a few roundings apart in opposite directions, so that a corner in between is turned by one of
the two. What remains is met at one start and not at another; a defect is met at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from export.training.contract import Contract
from export.training.options import Options
from export.training.proof.answers import (
    MUTED,
    Answers,
    Bound,
    Difference,
    bounds_of,
    by_program,
    chaotic,
    compared,
    norm,
    with_turned,
)
from export.training.proof.cases import Batch, Case, Material, correction_of, drawn
from export.training.proof.culprit import ASK, culprit_of, layer_of
from export.training.proof.golden import Golden
from export.training.proof.reference import Reference, inputs_of
from export.training.session import TrainingSession, open_session
from fl_mobile.errors import ExportError, FlMobileError
from fl_mobile.models import keras_bridge
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.tensors import Tensors

STARTS = 5
FEW_ROWS = 4
"""Rows of batches where several steps follow each other, and a corner turned by one moves the rest."""

FURTHER = 8
"""Roundings that the weights are moved by, either way, to turn the corners between."""
_LARGE, _SMALL = 4.0, 0.02
"""How far a step may go, in norms of the weights: to show the gradient, and to train."""
_DEEP = 16
"""With more normalised layers than this, steps of a hundredth amplify what rounding changed a thousand times and more:
several steps are compared from a calm start. Corners of activations show in the single steps, which are not calm."""


@dataclass(frozen=True)
class Proof:
    """What was compared when a program was built.

    Attributes:
        golden: Keras' answers of the drawn cases, for who has the files alone.
        compared: One line a case.
    """

    golden: tuple[Golden, ...]
    compared: tuple[str, ...]


def prove(
    model: Any,
    options: Options,
    tflite: bytes,
    contract: Contract,
    *,
    examples: Batch | None = None,
    lost: Sequence[str] = (),
) -> Proof:
    """Returns the proof that the program does what Keras does.

    Args:
        model: The Keras model.
        options: What the program was built with.
        tflite: The program.
        contract: Its contract.
        examples: Real ones with their labels.
        lost: Activations that conversion dropped, see `lost_operations`; whatever came out right by chance, they count.

    Raises:
        ExportError: It does not; the message names the layer.
    """
    prover = _Prover(
        model=model,
        options=options,
        contract=contract,
        session=open_session(tflite, contract),
        reference=Reference(model, options),
        lost=tuple(lost),
    )
    golden = [prover.at_drawn_starts(name) for name in prover.names()]
    own = prover.at_own_start(examples)
    if lost:
        raise ExportError(f"model '{model.name}': conversion lost activations: {'; '.join(lost)}. {ASK}.")
    lines = [*(_line(g.case, g.worst) for g in golden if g.worst), own]
    return Proof(tuple(golden), tuple(lines))


def _line(case: Case, worst: Difference) -> str:
    rows = "+".join(map(str, case.rows))
    return (
        f"{case.name}: batches of {rows}, off by {worst.off:.1g} at most, where rounding explains {worst.allowed:.1g}"
    )


@dataclass(frozen=True)
class _Prover:
    model: Any
    options: Options
    contract: Contract
    session: TrainingSession
    reference: Reference
    lost: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Returns the cases this program can play."""
        # The gradient last: what a case before it left behind, state of the optimizer or a correction, would show.
        return ("steps", *(["accumulated"] if self.contract.accumulate else []), "gradient")

    def at_drawn_starts(self, name: str) -> Golden:
        """Returns Keras' answers at the first of a few drawn starts where the program has them too."""
        apart: list[tuple[Case, list[Difference]]] = []
        batch = self.contract.batch_size
        few = min(batch, FEW_ROWS)
        rows, reach = ((batch,), _LARGE) if name == "gradient" else ((few, max(1, few - 1), few), _SMALL)
        calm = name != "gradient" and _normalised(self.model) > _DEEP
        for seed in range(STARTS):
            start = self._start(name, seed, rows, reach, calm=calm)
            if start is None:
                continue
            case, material = start
            want, bounds, found = self._found(case, material, recorded=True)
            if all(d.same for d in found):
                return Golden.of(case, want, bounds, found)
            apart.append((case, found))
            if name != "gradient" and chaotic(bounds):
                calm = True
        if not apart:
            self._check_finite(self._own_material(keras_bridge.read(self.model), None, 0))
            raise ExportError(
                f"model '{self.model.name}': from drawn weights its loss or a gradient is no finite number, so its"
                " training cannot be proven. Normalise inside the model (Rescaling, BatchNormalization), and keep log,"
                " exp and division away from 0 and from large numbers."
            )
        raise self._refusal(*min(apart, key=lambda pair: sum(not d.same for d in pair[1])))

    def at_own_start(self, examples: Batch | None) -> str:
        """Compares one step from the weights the model has now; returns a line about it."""
        start, apart = keras_bridge.read(self.model), []
        for seed in range(STARTS):
            material = self._own_material(start, examples, seed)
            case = self._rated(Case("own weights", seed, (len(material.batches[0][1]),), 1.0), material, _LARGE)
            if case is None:
                self._check_finite(material)
                raise ExportError(f"model '{self.model.name}': its weights are no finite numbers. {ASK}.")
            _, _, found = self._found(case, material)
            if all(d.same for d in found):
                worst = max(found[:-1], key=lambda d: d.off / d.allowed)
                kind = "real examples" if examples is not None else "drawn examples"
                return _line(replace(case, name=f"own weights, {kind}"), worst)
            apart.append((case, found))
        raise self._refusal(*apart[0])

    def _own_material(self, start: Tensors, examples: Batch | None, seed: int) -> Material:
        rows = self.contract.batch_size
        if examples is None:
            case = Case("own weights", seed, (rows,), 1.0, **inputs_of(self.model))
            return Material(start, drawn(case, self.contract).batches)
        x, y = examples
        chosen = np.random.default_rng(seed).permutation(len(y))[:rows]
        ports = {p.name: p.dtype for p in self.contract.signature("train").inputs}
        return Material(start, ((x[chosen].astype(ports["x"]), y[chosen].astype(ports["y"])),))

    def _start(
        self, name: str, seed: int, rows: tuple[int, ...], reach: float, *, calm: bool = False
    ) -> tuple[Case, Material] | None:
        """Returns a case with rates that suit the model, and its material; None where numbers are not finite."""
        for scale, signed in ((1.0, True), (1.0, False), (0.1, False)):
            case = Case(name, seed, rows, 1.0, weight_scale=scale, signed=signed, **inputs_of(self.model))
            case = replace(case, accumulate=name == "accumulated", calm=calm)
            material = drawn(case, self.contract)
            rated = self._rated(case, material, reach)
            if rated is not None:
                return rated, material
        return None

    def _rated(self, case: Case, material: Material, reach: float) -> Case | None:
        """Returns the case with a learning rate that moves the weights by ``reach`` of their norm, μ and correction."""
        gradient = self.reference.gradient(case, material)
        size = _norm_of(gradient)
        weights = _norm_of({path: material.weights[path] for path in gradient})
        if not (np.isfinite(size) and np.isfinite(weights)):
            return None
        count = sum(value.size for value in gradient.values())
        if self.options.optimizer == "adam":
            rate = reach * max(weights, 1e-3) / count**0.5
        else:
            moved = min(size, self.options.clip_norm) if self.options.clip_norm else size
            rate = reach * max(weights, 1e-3) / max(moved, 1e-6)
        rate = float(2.0 ** np.round(np.log2(rate)))
        if case.name in ("steps", "accumulated"):
            case = replace(
                case,
                prox_mu=float(np.float32(0.3 / rate)) if self.contract.proximal else 0.0,
                correction=float(0.5 * max(size, 1e-6) / count**0.5) if self.contract.correction else 0.0,
            )
        return replace(case, learning_rate=rate)

    def _found(
        self, case: Case, material: Material, *, recorded: bool = False
    ) -> tuple[Answers, dict[str, Bound], list[Difference]]:
        """Returns Keras' answers, what rounding explains, and how far the program is from them.

        What is within the tolerance of any model needs no measured one, unless that is ``recorded`` for others.
        """
        material = replace(material, correction=correction_of(case, self.contract))
        got, want = self._answers(case, material), self.reference.play(case, material)
        bounds = bounds_of(want, ())
        found = compared(got, want, bounds)
        if not recorded and all(d.same for d in found):
            return want, bounds, found
        nudged: list[tuple[float, Answers]] = [(1, self.reference.nudged(case, material, 1))]
        if want.faint:
            nudged.append((MUTED, self.reference.play(case, material, mute=True)))
        bounds, want = bounds_of(want, nudged), with_turned(want, nudged)
        found = compared(got, want, bounds)
        if any(not d.same for d in found) and not chaotic(bounds):
            nudged += [(FURTHER, self.reference.nudged(case, material, way * FURTHER)) for way in (1, -1)]
            bounds = bounds_of(want, nudged)
            want = with_turned(want, nudged)
            found = compared(got, want, bounds)
        return want, bounds, found

    def _answers(self, case: Case, material: Material) -> Answers:
        try:
            return by_program(self.session, case, material)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, FlMobileError):
                raise
            raise ExportError(
                f"model '{self.model.name}': its training program does not run: {str(error).splitlines()[0][:300]}"
            ) from error

    def _refusal(self, case: Case, found: Sequence[Difference]) -> ExportError:
        batch = (self.contract.batch_size,)
        if case.name != "gradient" and (start := self._start("gradient", case.seed, batch, _LARGE)) is not None:
            # Several steps carry a difference everywhere; one step shows where it comes from.
            first, (_, _, here) = start[0], self._found(*start)
            case, found = (first, here) if any(not d.same for d in here) else (case, found)
        told = culprit_of(self.model, self.options, case, [d for d in found if not d.same])
        return ExportError(f"{told} Conversion lost activations: {'; '.join(self.lost)}." if self.lost else told)

    def _check_finite(self, material: Material) -> None:
        """Refuses a model whose gradient is no finite number where it starts, by the layer nearest to its output."""
        gradient = self.reference.gradient(Case("own weights", 0, (len(material.batches[0][1]),), 1.0), material)
        bad = [path for path, value in gradient.items() if not np.isfinite(value).all()]
        if bad:
            raise ExportError(
                f"layer '{layer_of(self.model, bad[-1])}': its gradient is no finite number at the model's own weights,"
                " so no phone could train it. Look, from there to the output, for a logarithm or root of 0, a division"
                " by 0, or inputs that are not normalised."
            )


def _normalised(model: Any) -> int:
    return sum(type(layer).__name__ == "BatchNormalization" for layer in flatten_layers(model))


def _norm_of(tensors: Tensors) -> float:
    return float(np.sqrt(sum(norm(value) ** 2 for value in tensors.values())))
