"""Noise at the end of one operation, carried to the answers by the float32 network.

```
operation ─short slice─▶ next cut ─one long slice for all operations before it─▶ answers
```
A cut is where a single tensor is all that the rest of the network reads, as after each block of a residual network.
The rest is loaded once a cut and not once an operation: EfficientNetB0 has 240 operations, and cuts between its blocks.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from export.layers.run import Slice, Values, run_slice
from export.tflite.editing import activations

_LONG = 100
"""Operations of a model whose rest is run by all cores; a shorter one is over before they have woken."""


class Onward:
    """Carries noise to the answers; ask for operations in execution order."""

    def __init__(self, exact: Any, values: Values, answers: Collection[int]) -> None:
        """Takes the float32 ``ModelT``, what its tensors hold ``[n, ...]``, and the tensors that are its answers."""
        self._exact, self._values, self.answers = exact, values, sorted(set(answers))
        self._cuts = cuts(exact)
        self._after = _dependents(exact)
        self._place = {int(op.outputs[0]): at for at, op in enumerate(exact.subgraphs[0].operators)}
        self._rest: tuple[int, Slice] | None = None
        self._threads = (os.cpu_count() or 1) if len(exact.subgraphs[0].operators) >= _LONG else 1

    def with_noise(self, tensor: int, noise: np.ndarray) -> dict[int, np.ndarray]:
        """Returns the answers that ``noise`` ``[n, ...]`` on top of ``tensor`` reaches, ``[n, ...]`` by tensor."""
        disturbed = (self._values[tensor] + noise).astype(self._values[tensor].dtype)
        cut = next((cut for cut in self._cuts[self._place[tensor] :] if cut is not None), None)
        after = self._after.get(tensor, frozenset())
        if cut is None or (cut != tensor and cut not in after):  # it only reaches an answer that left earlier
            return self._straight(tensor, disturbed)
        found, further = {tensor: disturbed}, [a for a in self.answers if self._place[a] > self._place[cut]]
        if cut != tensor:
            wanted = [cut, *(a for a in self.answers if a in after and a != cut and a not in further)]
            found |= dict(zip(wanted, self._run(tensor, disturbed, wanted), strict=True))
        if further:
            if self._rest is None or self._rest[0] != cut:
                self._rest = cut, Slice(self._exact, [cut], further, threads=self._threads)
            found |= dict(zip(further, self._rest[1].run({cut: found[cut]}), strict=True))
        return {answer: rows for answer, rows in found.items() if answer in self.answers}

    def _straight(self, tensor: int, disturbed: np.ndarray) -> dict[int, np.ndarray]:
        after = self._after.get(tensor, frozenset())
        reached = [answer for answer in self.answers if answer in after]
        found = dict(zip(reached, self._run(tensor, disturbed, reached), strict=True)) if reached else {}
        return found | ({tensor: disturbed} if tensor in self.answers else {})

    def _run(self, tensor: int, disturbed: np.ndarray, outputs: Sequence[int]) -> list[np.ndarray]:
        after = self._after.get(tensor, frozenset())
        before = {index: rows for index, rows in self._values.items() if index not in after}
        return run_slice(self._exact, {**before, tensor: disturbed}, outputs)


def cuts(model: Any) -> list[int | None]:
    """Returns for every operation the one tensor that later ones read of all that is computed by then, or None."""
    graph = model.subgraphs[0]
    made = {int(end): -1 for end in graph.inputs}
    last: dict[int, int] = {}
    for at, operator in enumerate(graph.operators):
        made.update({int(out): at for out in operator.outputs})
        last.update(dict.fromkeys(activations(model, operator.inputs), at))
    found: list[int | None] = []
    for at in range(len(graph.operators)):
        live = [tensor for tensor, when in made.items() if when <= at < last.get(tensor, -1)]
        found.append(live[0] if len(live) == 1 and made[live[0]] >= 0 else None)
    return found


def _dependents(model: Any) -> dict[int, frozenset[int]]:
    """Returns tensor → the tensors that depend on it, of all that something depends on."""
    found: dict[int, set[int]] = {}
    for operator in reversed(model.subgraphs[0].operators):
        outputs = set(map(int, operator.outputs))
        further = outputs.union(*(found.get(out, ()) for out in outputs))
        for index in map(int, operator.inputs):
            found.setdefault(index, set()).update(further)
    return {index: frozenset(further) for index, further in found.items()}
