"""A client's arrays as the coordinator's program takes them; what it does not take is refused before a step is made.

```
x, or x.<input> in the order of the contract ─▶ rows of x      its shape and type
y, or y.<head> in the order of the task, weight ─▶ rows of y   by the laws of the task (fl_mobile.tasks)
```
The program's contract is all that a client knows of the model: classes end where its answers do.
"""

from __future__ import annotations

import numpy as np

from device_sim.datasets.npz_ends import EXACT
from device_sim.deploy.examples import Examples
from export.training.contract import Contract, Port
from fl_mobile.client.sums import counts_of, end_to_end, moments_of
from fl_mobile.errors import DataError
from fl_mobile.models.ends import port_of
from fl_mobile.protocol import statistics
from fl_mobile.protocol.statistics import Statistic
from fl_mobile.tasks import prepared, task_row
from fl_mobile.tasks.heads import joined
from fl_mobile.tasks.table import CLASSES, RECONSTRUCTION, bare
from fl_mobile.tasks.targets import rebuilt, standardised
from fl_mobile.tasks.weighted import checked_weights, weighted_of, with_weights
from fl_mobile.wire.sums import pack_sums

_KINDS = {"float32": "finite", "int32": "tokens from 0,", "uint8": "pixels"}


def rows_for(contract: Contract, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets ``[n, …]`` as the program's signatures take them.

    Raises:
        DataError: The file lacks an array that the program takes, has one that it does not, or one of another kind.
    """
    task, heads = bare(contract.task), task_row(bare(contract.task)).heads
    ports = [port_of(text) for text in contract.inputs]
    inputs = [f"x.{port.name}" for port in ports] or ["x"]
    targets = [f"y.{head.name}" for head in heads] or ([] if task == RECONSTRUCTION else ["y"])
    of = weighted_of(contract.task)
    _check_names(contract, examples, [*inputs, *targets, *(["weight"] if of else [])])
    if ports:
        parts = zip(inputs, ports, strict=True)
        x = joined({port.name: _input(examples, key, port.shape, port.dtype) for key, port in parts})
    else:
        taken = _port(contract, "x")
        x = _input(examples, "x", taken.shape[1:], taken.dtype)
    if heads:
        told = zip(targets, heads, strict=True)
        y = joined({h.name: _targets(examples, key, h.task, h.target, h.answer[-1]) for key, h in told})
    elif task == RECONSTRUCTION:
        y = rebuilt(x)
    else:
        shape = of.target if of else _port(contract, "y").shape[1:]
        outputs = contract.signature("infer").outputs[0].shape
        y = _targets(examples, "y", task, shape, outputs[-1])
    if contract.target_mean:
        y = standardised(y, np.array(contract.target_mean), np.array(contract.target_spread))
    if of:
        y = with_weights(y, checked_weights(f"{examples.name}: 'weight'", examples.arrays["weight"], len(y)))
    return x, y


def sums_of(examples: Examples, asked: Statistic) -> bytes:
    """Returns the packet of sums that the coordinator asks for before there is a program.

    Raises:
        DataError: They cannot be made of what this client holds.
    """
    wanted = [name for name, _ in asked.arrays] + (["y"] if asked.targets else [])
    if missing := [key for key in wanted if key not in examples.arrays]:
        raise DataError(
            f"{examples.name}: the coordinator asks for sums of {' and '.join(wanted)} before round 1; this client"
            f" holds {', '.join(examples.arrays)}: save '{missing[0]}' too"
        )
    if asked.about == statistics.CLASSES:
        for key, classes in asked.arrays:
            y = examples.arrays[key]
            if y.dtype.kind not in "iufb" or not np.array_equal(y, np.rint(y)) or y.max() >= classes:
                raise DataError(_not(examples, key, f"classes from 0 to {classes - 1} to count"))
        numbers = end_to_end((examples.arrays[key], classes) for key, classes in asked.arrays)
        return pack_sums(asked.question, counts_of(numbers, asked.columns - 1))
    rows = np.hstack([_input(examples, key, (columns,), "float32") for key, columns in asked.arrays])
    if asked.targets:
        rows = np.hstack([rows, _targets(examples, "y", "regression", (asked.targets,), 0)])
    return pack_sums(asked.question, moments_of(rows))


def _check_names(contract: Contract, examples: Examples, wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in examples.arrays]
    odd = [name for name in examples.arrays if name not in wanted]
    if missing or odd:
        raise DataError(
            f"{examples.name}: the coordinator's program (task '{bare(contract.task).partition('(')[0]}') takes"
            f" {', '.join(wanted)}; this client holds {', '.join(examples.arrays)}: save those arrays, no other"
        )


def _port(contract: Contract, name: str) -> Port:
    return next(port for port in contract.signature("train").inputs if port.name == name)


def _input(examples: Examples, key: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Returns inputs of one kind; a lone channel and a lone column need no axis of their own."""
    x = examples.arrays[key]
    if x.shape[1:] != shape and shape[-1:] == (1,) and x.shape[1:] == shape[:-1]:
        x = x[..., None]
    if x.shape[1:] != shape or x.dtype.kind not in "iufb":
        raise DataError(_not(examples, key, f"{dtype}{('n', *shape)}"))
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = dtype == "float32" and bool(np.isfinite(x.astype(np.float32)).all())
    else:  # whole numbers are exact in rows of float32; those of a lone input are tokens
        lone = dtype == "int32" and key == "x"
        least, most = (0, 2**31 - 1) if lone else (-EXACT, EXACT)
        fits = (dtype != "uint8" or x.dtype == np.uint8) and least <= int(x.min()) and int(x.max()) <= most
    if not fits:
        raise DataError(_not(examples, key, f"{_KINDS[dtype]} {dtype}{('n', *shape)}"))
    return x.astype(dtype)


def _targets(examples: Examples, key: str, task: str, shape: tuple[int, ...], outputs: int) -> np.ndarray:
    y = examples.arrays[key]
    try:
        found = prepared(task, y)
    except DataError as error:
        raise DataError(f"{examples.name}: '{key}' is {error}") from None
    if found.shape[1:] != shape:
        raise DataError(_not(examples, key, f"{('n', *shape)}, as the coordinator's model answers"))
    row, classes = task_row(task), max(outputs, 2)
    if row.kind == CLASSES and (found.max() >= classes or found.min() < (-1 if row.padded else 0)):
        raise DataError(
            f"{examples.name}: '{key}' has classes {found.min()} to {found.max()}, the coordinator's model tells 0 to"
            f" {classes - 1}"
        )
    return found


def _not(examples: Examples, key: str, wanted: str) -> str:
    found = examples.arrays[key]
    return f"{examples.name}: '{key}' is {found.dtype}{found.shape}, the coordinator takes {wanted}"
