"""Federated evaluation: the model on every device's own held-out examples, as it came and after personalisation.

```
sample of devices ─▶ global weights + private tensors ─▶ accuracy of each ─▶ p10, p50, p90, worst 5 %, histogram
                          └▶ fine-tune | head | ditto ─▶ accuracy of each ─▶ the same
```
A global test set tells how good the model is on average; this tells for whom it is not (Wang et al., "Federated
evaluation of on-device personalization", arXiv 1910.10252).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from device_sim.client_data.held_out import Examples
from device_sim.engines import Evaluation, Task, train_each
from device_sim.experiment.personal import DITTO
from device_sim.federation.federation import Federation
from device_sim.rounds.memory import client_state
from device_sim.rounds.own import personal_plan, private_of
from fl_mobile.client.private import NONE
from fl_mobile.records import ServerState
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tasks import measured, metric_row, task_row

BINS = 20
"""Of the histogram of accuracies over [0, 1]."""


def evaluate_devices(federation: Federation, shelf: Shelf, state: ServerState) -> list[Evaluation]:
    """Returns the global model's accuracy on each sampled device's held-out examples, its private tensors in place.

    Args:
        shelf: Holds the private tensors.
        state: After at least one round.
    """
    tasks = (
        Task(device, *examples, 0, start=private_of(federation, client_state(shelf, device, ("private",))))
        for device, examples in _test_parts(federation)
    )
    return _scores(federation, state, tasks)


def evaluate_personalised(federation: Federation, shelf: Shelf, state: ServerState) -> list[Evaluation]:
    """Returns each sampled device's accuracy with the model it has made its own; arguments as in `evaluate_devices`."""
    if federation.experiment.personal.method == DITTO:
        # A device that never took part has no model of its own yet, and uses the global one.
        own = ((d, examples, shelf.newest(f"personal-{d}")) for d, examples in _test_parts(federation))
        return _scores(federation, state, (Task(d, *examples, 0, start=start) for d, examples, start in own))
    return _scores(federation, state, _fine_tuned(federation, shelf, state))


@dataclass(frozen=True)
class Distribution:
    """Accuracies of single devices, every device counting alike.

    Attributes:
        accuracy: ``p10``, ``p50``, ``p90``, ``mean``, and ``worst_5_percent``: the mean of the lowest twentieth, at
            least one device.
        histogram: ``edges`` of `BINS` equal bins over [0, 1], and ``counts``; scores below 0 are in the first.
    """

    accuracy: dict[str, float]
    histogram: dict[str, list[float]]


def distribution(scores: Sequence[Evaluation]) -> Distribution:
    """Returns quantiles and histogram of the accuracies of one or more devices."""
    accuracy = [score.accuracy for score in scores]
    counts, edges = np.histogram(np.maximum(accuracy, 0.0), BINS, (0.0, 1.0))
    return Distribution(quantiles_of(accuracy), {"edges": edges.round(6).tolist(), "counts": counts.tolist()})


def quantiles_of(values: Sequence[float], *, larger_is_better: bool = True) -> dict[str, float]:
    """Returns ``p10``, ``p50``, ``p90``, ``worst_5_percent`` and ``mean`` of single devices' values."""
    rising = np.sort(values)
    p10, p50, p90 = np.percentile(rising, (10, 50, 90)).tolist()
    few = -(-len(rising) // 20)
    worst = float((rising[:few] if larger_is_better else rising[-few:]).mean())
    return {"p10": p10, "p50": p50, "p90": p90, "worst_5_percent": worst, "mean": float(rising.mean())}


def metrics_of(federation: Federation, score: Evaluation) -> dict[str, float]:
    """Returns every metric of the task on one set, numbers in the units they came in."""
    scaling = federation.dataset.scaling
    units = scaling.target_spread if scaling is not None and len(scaling.target_spread) else None
    further = federation.experiment.output.metrics
    return measured(federation.dataset.task, score.tally, units, further=further) if score.tally else {}


def metrics_on_devices(federation: Federation, scores: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Returns, for every metric, its quantiles over the devices on which it is defined, and how many those are."""
    told = [metrics_of(federation, score) for score in scores]
    out: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys((*task_row(federation.dataset.task).metrics, *federation.experiment.output.metrics)):
        values = [metrics[name] for metrics in told if name in metrics]
        if values:
            spread = quantiles_of(values, larger_is_better=metric_row(name).larger_is_better)
            out[name] = {**spread, "devices": float(len(values))}
    return out


def federated_evaluation(federation: Federation, shelf: Shelf, state: ServerState) -> dict[str, Any] | None:
    """Returns what ``summary.json`` says about single devices; None if none has held-out examples."""
    scores = evaluate_devices(federation, shelf, state)
    if not scores:
        return None
    method = federation.experiment.personal.method
    return {
        "devices": len(scores),
        "examples_per_device": float(np.mean([score.examples for score in scores])),
        **asdict(distribution(scores)),
        "metrics": metrics_on_devices(federation, scores),
        "personalised": None
        if method == NONE
        else asdict(distribution(evaluate_personalised(federation, shelf, state))),
        "personalisation": method,
    }


def sampled_devices(federation: Federation) -> list[int]:
    """Returns the devices that are evaluated: a seeded sample of those with a test part, the same each time."""
    most, parts, chosen = federation.experiment.evaluation.devices, federation.test_parts, np.zeros(0, np.int64)
    if parts is None:
        return []
    order = rng_for(federation.experiment.seed, "evaluation").permutation(parts.population)
    for at in range(0, len(order), most):
        some = order[at : at + most]
        chosen = np.append(chosen, some[parts.test_counts(some) > 0])
        if len(chosen) >= most:
            break
    found: list[int] = np.sort(chosen[:most]).tolist()
    return found


def _test_parts(federation: Federation) -> Iterator[tuple[int, Examples]]:
    if parts := federation.test_parts:
        for device in sampled_devices(federation):
            x, y = parts.held_out(device)
            yield device, (x, federation.dataset.trained_targets(y, parts.held_out_weights(device)))


def _scores(federation: Federation, state: ServerState, tasks: Iterable[Task]) -> list[Evaluation]:
    plan = federation.plan(state.round_num - 1)
    return list(federation.engine.evaluate_each(federation.whole(state.model), tasks, plan))


def _fine_tuned(federation: Federation, shelf: Shelf, state: ServerState) -> Iterator[Task]:
    """Yields evaluation tasks whose weights a device has just tuned on its own train part; a few are made ahead."""
    whole, plan = federation.whole(state.model), personal_plan(federation, state.round_num - 1)
    devices, seed = sampled_devices(federation), federation.experiment.seed
    train = (
        Task(
            *(device, *federation.examples(device), seed_for(seed, device, "personalisation")),
            start=private_of(federation, client_state(shelf, device, ("private",))),
        )
        for device in devices
    )
    tuned = plan.trained or tuple(whole)
    updates = train_each(federation.engine, whole, train, plan)
    for (device, examples), (task, update) in zip(_test_parts(federation), updates, strict=True):
        own = {path: whole[path] + update.delta[path] for path in tuned}
        yield Task(device, *examples, 0, start={**(task.start or {}), **own})
