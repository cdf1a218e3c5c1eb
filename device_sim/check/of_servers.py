"""What algorithms, aggregation rules, schedules and averages promise."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from device_sim.check.law import SPEC, Law, ask, check_tensors, same, updates
from fl_mobile.tensors import Tensors


def _stepped(row: Any, deltas: list[Tensors]) -> tuple[Any, list[Any]]:
    from fl_mobile.algorithms import Mean

    algorithm = row.build()
    state = algorithm.init({p: np.ones(t.shape, np.float32) for p, t in SPEC.items()}, SPEC)
    states = [state]
    for delta in deltas:
        trained = {p: v for p, v in delta.items() if SPEC[p].trainable}
        mean = Mean(delta=delta, per_step=trained if algorithm.per_step else {}, steps=5.0, learning_rate=0.1)
        if algorithm.sends:
            mean = replace(mean, sent=states[-1].slots.get(algorithm.sends, {}))
        states.append(algorithm.apply(states[-1], mean))
    return algorithm, states


def _algorithm_finite(row: Any, name: str) -> None:
    for state in _stepped(row, updates(3))[1]:
        check_tensors(f"the model of round {state.round_num}", state.weights)


def _algorithm_counts(row: Any, name: str) -> None:
    numbers = [state.round_num for state in _stepped(row, updates(3))[1]]
    ask(numbers == [0, 1, 2, 3], f"rounds are numbered {numbers}, expected one more with every step")


def _algorithm_repeats(row: Any, name: str) -> None:
    one, other = (_stepped(row, updates(3))[1][-1].weights for _ in range(2))
    ask(same(one, other), "the same updates gave another model")


def _algorithm_statistics(row: Any, name: str) -> None:
    before, after = _stepped(row, updates(1))[1]
    moved = after.weights["variance"] - before.weights["variance"]
    told = "a statistic (trainable=False) went elsewhere than by the mean of its updates"
    ask(np.allclose(moved, updates(1)[0]["variance"], rtol=1e-5, atol=1e-6), told)


ALGORITHM = (
    Law("models stay finite float32 of their shapes", _algorithm_finite),
    Law("every step counts one round", _algorithm_counts),
    Law("the same updates give the same model", _algorithm_repeats),
    Law("batch-norm statistics take the plain mean", _algorithm_statistics),
)


def _aggregated(row: Any, rows: list[Tensors]) -> Any:
    rule = row.with_parameters(row.parameters()).beside(updates(9)[8]).make(SPEC)
    for number, update in enumerate(rows):
        rule.add(update, 1 + number % 3 if row.mean else 1)
    return rule


def _rule_shapes(row: Any, name: str) -> None:
    check_tensors("the aggregate", _aggregated(row, updates(7)).result())


def _rule_order(row: Any, name: str) -> None:
    rows = updates(7)
    turned = [rows[i] for i in (3, 1, 5, 0, 4, 2, 6)] if not row.mean else [*rows[3:], *rows[:3]]
    if row.mean:  # weights go with the place
        rows, turned = [rows[0]] * 7, [rows[0]] * 7
    ask(same(_aggregated(row, rows).result(), _aggregated(row, turned).result()), "another order, other bits")


def _rule_merge(row: Any, name: str) -> None:
    rows = updates(6)
    parts = _aggregated(row, rows[:3])
    parts.merge(_aggregated(row, rows[3:]))
    ask(same(parts.result(), _aggregated(row, rows).result()), "two halves merged are not the whole")


def _rule_empty(row: Any, name: str) -> None:
    ask(_aggregated(row, []).result() is None, "nothing was added, and yet there is an aggregate")


def _rule_same(row: Any, name: str) -> None:
    if row.reference:
        return
    one = updates(1)[0]
    found = _aggregated(row, [one] * 5).result()
    ask(all(np.allclose(found[p], one[p], rtol=1e-5) for p in one), "five times one update is not that update")


def _rule_subtracts(row: Any, name: str) -> None:
    if not row.subtractable:
        return
    rule, (first, other) = _aggregated(row, []), updates(2)
    for update, weight in ((first, 3), (other, 2), (other, -2)):
        rule.add(update, weight)
    rule2 = _aggregated(row, [])
    rule2.add(first, 3)
    ask(same(rule.result(), rule2.result()), "what was taken out again left a trace")


AGGREGATION = (
    Law("the aggregate has the spec's shapes, finite", _rule_shapes),
    Law("the order of arrival changes no bit", _rule_order),
    Law("parts merge to the whole", _rule_merge),
    Law("nothing added is None", _rule_empty),
    Law("equal updates aggregate to themselves", _rule_same),
    Law("what is taken out leaves no trace, if the row says so", _rule_subtracts),
)


def fall(row: Any, name: str) -> None:
    if row.fall is None:
        return
    keys = {f.name for f in fields(row.parameters)}
    told = "a row that falls needs the parameters of fl_mobile.server.schedule.Falling: schedule_start and schedule_end"
    ask({"schedule_start", "schedule_end"} <= keys, told)
    falls = [float(row.fall(p)) for p in np.linspace(0, 1, 101)]
    ask(all(0 <= f <= 1 for f in falls), f"fall leaves [0, 1]: {min(falls):g} to {max(falls):g}")
    ask(falls[0] == 0 and abs(falls[-1] - 1) < 1e-9, f"fall goes from {falls[0]:g} to {falls[-1]:g}, expected 0 to 1")


def average(row: Any, name: str) -> None:
    from fl_mobile.records import MODEL

    memory: dict[str, Tensors] = {}
    for model in updates(4):
        memory = row.add(row.parameters(), memory, model)
        check_tensors("the mean model", memory[MODEL])


def average_repeats(row: Any, name: str) -> None:
    one = updates(1)[0]
    memory: dict[str, Tensors] = {}
    for _ in range(4):
        memory = row.add(row.parameters(), memory, one)
    from fl_mobile.records import MODEL

    told = "the mean of one model is another one"
    ask(all(np.allclose(memory[MODEL][p], one[p], rtol=1e-5, atol=1e-6) for p in one), told)


def factor(row: Any, name: str) -> None:
    from device_sim.experiment.experiment import Train

    factors = [row(t, Train(rounds=30)) for t in range(30)]
    bad = [f for f in factors if not (np.isfinite(f) and f >= 0)]
    ask(not bad, f"a factor of the learning rate is {bad[:1]}, expected a finite number ≥ 0")
