"""Clients as a Python program holds them: arrays, ``tf.data``, or a function that is asked for one of them."""

from __future__ import annotations

import inspect
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fl_mobile.errors import DataError
from fl_mobile.tasks import AUTO, decide, prepared, strata_of

Examples = tuple[np.ndarray, np.ndarray]
Ask = Callable[[int], Any]

_KEPT = 64
"""Clients whose examples a function is not asked for again at once."""


def given_arrays(
    clients: Mapping[Any, Any] | Sequence[Any], test: Any, labels: Sequence[str] | None, task: str = AUTO
) -> dict[str, np.ndarray]:
    """Returns what an ``.npz`` dataset holds, with every client's number beside each of its examples.

    Args:
        clients: Client → ``(x, y)`` or ``tf.data.Dataset``, as a mapping or a sequence.
        test: Held-out ``(x, y)``, or None.
        labels: Names of the classes, or None.
        task: Whose targets ``y`` are; ``"auto"`` decides by what they are.

    Raises:
        DataError: No client, or one whose examples are none or do not fit the others'; names it.
    """
    try:
        named = dict(clients) if isinstance(clients, Mapping) else {str(i): held for i, held in enumerate(clients)}
    except TypeError as error:
        raise DataError(f"clients: expected a mapping of names, or a sequence, of (x, y): {error}") from None
    if not named:
        raise DataError("clients: expected at least one client, got none")
    pairs = {name: given_pair(f"client {name!r}", held, task) for name, held in named.items()}
    first = next(iter(pairs))
    for name, pair in pairs.items():
        _check_alike(f"client {name!r}", pair, f"client {first!r}", pairs[first])
    out = {
        "x": np.concatenate([x for x, _ in pairs.values()]),
        "y": np.concatenate([y for _, y in pairs.values()]),
        "device": np.repeat(np.arange(len(pairs)), [len(y) for _, y in pairs.values()]),
    }
    if test is not None:
        out["x_test"], out["y_test"] = pair = given_pair("test", test, task)
        _check_alike("test", pair, f"client {first!r}", pairs[first])
    if labels is not None:
        out["labels"] = np.array(list(labels), str)
    return out


def given_pair(what: str, held: Any, task: str = AUTO) -> Examples:
    """Returns ``(x, y)`` as arrays, inputs other than ``uint8`` and whole numbers as ``float32``, targets as they came.

    Args:
        what: Starts messages.
        held: Both, or a ``tf.data.Dataset`` of pairs, which is read whole.
        task: Whose targets ``y`` are; ``"auto"`` decides by what they are.

    Raises:
        DataError: It is something else, empty, or no targets of that task.
    """
    if hasattr(held, "as_numpy_iterator"):
        both = list(held.unbatch().as_numpy_iterator() if _is_batched(held) else held.as_numpy_iterator())
        held = (np.array([x for x, _ in both]), np.array([y for _, y in both]))
    if not isinstance(held, (tuple, list)) or len(held) != 2:
        raise DataError(f"{what}: expected (x, y), got {type(held).__name__}")
    try:
        x, y = (np.asarray(part) for part in held)
    except ValueError:  # rows of several lengths
        raise DataError(f"{what}: expected arrays x [n, …] and y [n, …], got rows of several shapes") from None
    if x.ndim < 2 or not y.ndim or len(x) != len(y):
        raise DataError(f"{what}: expected x [n, …] and as many targets y [n, …], got x{x.shape} and y{y.shape}")
    if not len(y):
        raise DataError(f"{what}: holds no example; leave it out")
    if x.dtype.kind not in "uifb":
        raise DataError(f"{what}: expected numbers x [n, …], got {x.dtype}")
    _prepared(what, y, task)
    return (x if x.dtype.kind in "iu" else x.astype(np.float32)), y


def pair_of(what: str, held: Any, task: str = AUTO) -> Examples:
    """Returns ``(x, y)`` as they are trained on; arguments and errors of `given_pair`."""
    x, y = given_pair(what, held, task)
    found, y = _prepared(what, y, task)
    if found == "sequence" and x.dtype.kind in "iu":
        return x.astype(np.int32), y
    if x.dtype == np.uint8:
        return (x[..., None] if x.ndim == 3 else x), y
    return x.astype(np.float32), y


def _prepared(what: str, y: np.ndarray, task: str) -> tuple[str, np.ndarray]:
    try:
        found = decide(y)[0] if task == AUTO else task
        return found, prepared(found, y)
    except DataError as error:
        raise DataError(f"{what}: targets y are {error}") from None


class AskedData:
    """`DeviceData` of a function that is asked for one client at a time; only the latest answers are kept.

    The function must answer alike every time it is asked for the same client.

    Attributes:
        population: How many clients there are; the function is asked for 0 to ``population`` − 1.
    """

    def __init__(self, ask: Ask, population: int, task: str = AUTO) -> None:
        self.population, self._task = population, task
        self._ask, self._counts = ask, np.full(population, -1, np.int64)
        self._kept: OrderedDict[int, Examples] = OrderedDict()
        self._like: Examples | None = None
        self._classes = 0

    def like(self, examples: Examples, classes: int) -> AskedData:
        """Says what examples and how many classes every client has to have; no classes if its targets are others."""
        self._like, self._classes = examples, classes
        return self

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``; asks for the clients that were not asked for before."""
        for client in index[self._counts[index] < 0].tolist():
            self.examples(client)
        return self._counts[index]

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``, all true: a client without examples is refused when it is asked."""
        return np.ones(len(index), bool)

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        held = (strata_of(self.examples(client)[1]) for client in index.tolist())
        return np.array([np.bincount(strata).argmax() for strata in held], np.int64)

    def examples(self, device: int) -> Examples:
        """Returns a client's examples.

        Raises:
            DataError: The function raised, or its answer does not fit; names client, file and line.
        """
        if device not in self._kept:
            self._kept[device] = self._asked(device)
            self._counts[device] = len(self._kept[device][1])
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(device)
        return self._kept[device]

    def weights(self, device: int) -> None:
        """Returns None: a function answers examples and targets."""

    def _asked(self, client: int) -> Examples:
        name = getattr(self._ask, "__name__", type(self._ask).__name__)
        try:
            held = self._ask(client)
        except Exception as error:  # the user's own code may raise anything
            at = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
            raise DataError(f"clients: {name}({client}) raised {told}") from error
        what = f"clients: {name}({client}) of {where_is(self._ask)}"
        x, y = pair_of(what, held, self._task)
        if self._like is not None:
            _check_alike(what, (x, y), "test", self._like)
        if self._classes and (y.min() < 0 or y.max() >= self._classes):
            raise DataError(f"{what}: classes run from {y.min()} to {y.max()}, expected 0 to {self._classes - 1}")
        return x, y


def asked_clients(
    ask: Ask, population: int | None, test: Any, labels: Sequence[str] | None, task: str = AUTO
) -> tuple[dict[str, np.ndarray], AskedData]:
    """Returns what an ``.npz`` dataset holds of clients that a function knows: the first one's examples, the test part.

    Args:
        ask: Client → ``(x, y)``.
        population: How many clients there are.
        test: Held-out ``(x, y)``.
        labels: Names of the classes; without them as many as ``test`` and the first client show.
        task: Whose targets ``y`` are; ``"auto"`` decides by what those of ``test`` are.

    Raises:
        DataError: One of them is missing, or does not fit.
    """
    if population is None or population < 1:
        raise DataError("clients is a function: say how many clients there are, e.g. devices=10_000")
    if test is None:
        raise DataError("clients is a function, of which nothing can be held out: give test=(x, y)")
    x, y = given_pair("test", test, task)
    task = _prepared("test", y, task)[0]
    like = pair_of("test", (x, y), task)
    data = AskedData(ask, population, task).like(like, 0)
    first = data.examples(0)
    arrays = {"x": first[0], "y": first[1], "x_test": like[0], "y_test": like[1]}
    if like[1].dtype.kind == "f":  # tags and numbers: whole ones would be taken for what they are not
        arrays |= {"y": first[1].astype(y.dtype), "y_test": like[1].astype(y.dtype)}
    classes = 0
    if task == "classification":
        names = list(labels) if labels is not None else [str(i) for i in range(1 + int(max(y.max(), first[1].max())))]
        arrays["labels"], classes = np.array(names, str), len(names)
    return arrays, data.like(like, classes)


def where_is(function: Any) -> str:
    """Returns file and line of a function, as far as Python knows them."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else type(function).__name__


def _check_alike(what: str, pair: Examples, other: str, like: Examples) -> None:
    for part, one, same in zip(("inputs", "targets"), pair, like, strict=True):
        if (one.dtype.kind, one.shape[1:]) != (same.dtype.kind, same.shape[1:]):
            raise DataError(
                f"{what}: {part} are {one.dtype}{one.shape[1:]}, those of {other} are {same.dtype}{same.shape[1:]}; all"
                " need the same"
            )


def _is_batched(dataset: Any) -> bool:
    _, y = dataset.element_spec
    return y.shape.rank > 0 and y.shape[0] is None
