"""The Python door: a federation in memory, or in a run folder, with the keys of an experiment as keywords.

>>> import numpy as np, device_sim
>>> clients = {"anna": (x0, y0), "ben": (x1, y1)}  # doctest: +SKIP
>>> run = device_sim.simulate(build_model, clients, test=(x, y), rounds=20, cohort=2, upload="ecsq")  # doctest: +SKIP
>>> for round in run: print(round.accuracy, round.upload_bytes)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.experiment.as_compiled import left_open, like
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import all_keys, parse_experiment, read_experiment, to_toml
from device_sim.federation.federation import Federation, open_federation
from device_sim.run import folder as run_folder
from device_sim.run.log import Round
from device_sim.run.loop import restore
from device_sim.run.loop import simulate as play
from fl_mobile.errors import ConfigError, DataError, ModelError
from fl_mobile.local.compiled import compiled_of
from fl_mobile.measurements.sources import read_updates
from fl_mobile.models import keras_bridge
from fl_mobile.models.build import build_model
from fl_mobile.storage.files import write_atomic
from fl_mobile.storage.npz import write_arrays
from fl_mobile.tensors import Tensors

_LOG = logging.getLogger("fl_mobile.compiled")
Examples = tuple[np.ndarray, np.ndarray]
Clients = str | Mapping[Any, Any] | Sequence[Any]

SHORT = {"upload": "upload.codec", "download": "download.mode", "engine": "engine.name"}
"""Keywords that are no last word of a key, or of several."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        path: The HTML file.
        html: What it holds.
    """

    path: Path
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" width="100%" height="800" frameborder="0"></iframe>'


class Run:
    """A federation on its way: iterate over it for its rounds, or `finish` it.

    Attributes:
        path: The run folder; a temporary one lives as long as this object.
        experiment: Every key, as it was resolved.
        rounds: Those that are finished.
    """

    def __init__(self, federation: Federation, folder: run_folder.RunFolder, temporary: Any = None) -> None:
        self._federation, self._folder, self._temporary = federation, folder, temporary
        self.path, self.experiment = folder.path, federation.experiment
        self.rounds: list[Round] = []

    def __iter__(self) -> Iterator[Round]:
        """Yields every round, finished ones first; stopped early, it goes on where it was."""
        self.rounds = []
        with run_folder.locked(self._folder):
            for round in play(self._federation, self._folder):
                self.rounds.append(round)
                yield round

    def __repr__(self) -> str:
        seen = [r.accuracy for r in self.rounds if r.accuracy is not None]
        told = f"{len(self.rounds)} rounds" + (f", accuracy {seen[-1]:.4f}" if seen else "")
        return f"<Run of {self._federation.data.population} clients: {told}>"

    def finish(self) -> Run:
        """Plays all rounds that are left."""
        for _ in self:
            pass
        return self

    @property
    def accuracy(self) -> float:
        """Held-out accuracy of the last round that was evaluated, 0 to 1."""
        self._last()
        return next(r.accuracy for r in reversed(self.rounds) if r.accuracy is not None)

    @property
    def updates(self) -> list[Tensors]:
        """A few raw client updates, spread over the run: what `fl_mobile.measure` takes. See output.keep-updates."""
        return read_updates(self._folder.updates)

    def model(self) -> Any:
        """Returns a new ``keras.Model`` with the global weights after the last finished round."""
        self._last()
        model = self._federation.build()
        keras_bridge.write(model, self._federation.whole(restore(self._federation, self._folder)[0].model))
        return model

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Returns ``accuracy`` and ``loss`` of the global model on examples of one's own."""
        state, _ = restore(self._federation, self._folder)
        plan = self._federation.plan(max(0, state.round_num - 1))
        score = self._federation.engine.evaluate(self._federation.whole(state.model), *_pair("evaluate", (x, y)), plan)
        return {"accuracy": score.accuracy, "loss": score.loss}

    def report(self, file: str | Path | None = None) -> Report:
        """Writes the HTML report of the finished rounds and returns it; a notebook shows it inline.

        Args:
            file: Where to; ``report.html`` in the run folder without it.
        """
        from device_sim.report import page, read_runs

        self._last()
        path = Path(file) if file else self.path / "report.html"
        html = page(read_runs([self.path]))
        write_atomic(path, html.encode())
        return Report(path, html)

    def close(self) -> None:
        """Ends the engine's workers, and removes a temporary run folder."""
        self._federation.engine.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last(self) -> Round:
        if not self.rounds:
            raise ConfigError("this run has no finished round yet; iterate over it, or call finish()")
        return self.rounds[-1]


def simulate(
    model: str | Callable[..., Any] | Any,
    clients: Clients,
    test: Examples | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    labels: Sequence[str] | None = None,
    experiment: str | Path | Experiment | None = None,
    **keys: Any,
) -> Run:
    """Opens a federation and returns it as a `Run`, of which no round has been played yet.

    The same experiment gives the same bytes as on the command line.

    Args:
        model: A function that builds a Keras model (called with those of ``input_shape``, ``num_classes``,
            ``input_scale`` and ``seed`` that it takes), a built Keras model, ``"package.module:function"``, or a name
            from ``fl-mobile models``. What it was compiled with holds where no key says otherwise.
        clients: Client → ``(x, y)``, as a mapping or a sequence: ``x`` ``uint8[n, height, width, channels]`` pixels or
            ``float32[n, …]``, ``y`` integer classes ``[n]``. Or the name of a dataset, dealt out as ``[data]`` says.
        test: Held-out ``(x, y)`` of the server; without it a fifth of what clients hold is held out.
        out: Run folder to keep; without it the run lives in a temporary folder.
        resume: Whether ``out`` holds a run that is to go on.
        labels: Names of the classes.
        experiment: TOML file or record that the keywords change; the defaults without it.
        **keys: Keys of the experiment: ``rounds=20``, ``epochs=2``, ``server_learning_rate=0.1``; ``-`` and ``.`` of a
            key are ``_``, and the section can be left out where one key alone ends so; of several, [train] has it.

    Raises:
        ConfigError, DataError, ModelError: What is wrong, and what to do.
    """
    changes = [f"{key}={_toml(value)}" for key, value in ((key_of(name), value) for name, value in keys.items())]
    temporary = None
    if out is None:
        temporary = tempfile.TemporaryDirectory(prefix="fl-mobile-")
        path = Path(temporary.name) / "run"
    else:
        path = Path(out)
    arrays = None if isinstance(clients, str) else _arrays(clients, test, labels)
    if arrays is None:
        changes.append(f"data.dataset={_toml(clients)}")
    else:
        population = len(np.unique(arrays["device"]))
        file, partition = path / "data.npz", '"natural"'
        changes += ['data.dataset="npz"', f"data.path={_toml(str(file))}", f"data.partition={partition}"]
        changes.append(f"data.devices={population}")
        if "cohort" not in keys and "train_cohort" not in keys:
            changes.append(f"train.cohort={min(10, population)}")
    if isinstance(model, str):
        changes.append(f"model.name={_toml(model)}")
    chosen, open_keys = _experiment(experiment, changes)
    with contextlib.ExitStack() as stack:
        if temporary is not None:
            stack.callback(temporary.cleanup)
        if resume:
            chosen, open_keys = like(chosen, run_folder.reopen(path)[1], open_keys), frozenset()
            folder, _ = run_folder.reopen(path, chosen)
        else:
            folder = run_folder.create(path, chosen)
            if arrays is not None:
                write_arrays(path / "data.npz", arrays)
            stack.callback(run_folder.discard, folder)
        build = None if isinstance(model, str) else _builder(model)
        federation = open_federation(chosen, build, open_keys=open_keys, compiled=compiled_of(model))
        stack.callback(federation.engine.close)
        if federation.compiled and not resume:
            _LOG.warning("%s", federation.compiled)
            write_atomic(folder.experiment, to_toml(federation.experiment).encode())
        run = Run(federation, folder, temporary)
        stack.pop_all()
    return run


def key_of(name: str) -> str:
    """Returns the experiment's key that a keyword means.

    >>> key_of("epochs"), key_of("server_learning_rate"), key_of("upload")
    ('train.epochs', 'server.learning-rate', 'upload.codec')

    Raises:
        ConfigError: No key, or several, end so.
    """
    if name in SHORT:
        return SHORT[name]
    wanted, known = name.replace("_", "-"), all_keys()
    whole = [key for key in known if key.replace(".", "-") == wanted]
    found = whole or [key for key in known if key.rpartition(".")[2] == wanted]
    if len(found) == 1 or f"train.{wanted}" in found:
        return found[0] if len(found) == 1 else f"train.{wanted}"
    if found:
        told = " or ".join(key.replace(".", "_").replace("-", "_") for key in found)
        raise ConfigError(f"keyword '{name}' can mean {', '.join(found)}; write {told}")
    names = [key.replace(".", "_").replace("-", "_") for key in known]
    close = get_close_matches(name, [*names, *SHORT, *(key.rpartition(".")[2].replace("-", "_") for key in known)], n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"unknown keyword '{name}'.{hint} `fl-mobile new DIR` writes every key with its meaning.")


def _experiment(base: str | Path | Experiment | None, changes: Sequence[str]) -> tuple[Experiment, frozenset[str]]:
    """Returns the experiment and what it leaves open for the model's ``compile()`` to say; a record leaves nothing."""
    if isinstance(base, (str, Path)):
        return read_experiment(Path(base), changes), left_open(Path(base).read_text(encoding="utf-8"), changes)
    text = to_toml(base) if base else ""
    return parse_experiment(text, changes), left_open(text, changes)


def _toml(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else list(value) if isinstance(value, tuple) else value
    return json.dumps(plain)


def _arrays(
    clients: Mapping[Any, Any] | Sequence[Any], test: Any, labels: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Returns what an ``.npz`` dataset holds, with every client's name beside each of its examples."""
    named = dict(clients) if isinstance(clients, Mapping) else {str(i): held for i, held in enumerate(clients)}
    if not named:
        raise DataError("clients: expected at least one client, got none")
    pairs = {name: _pair(f"client {name!r}", held) for name, held in named.items()}
    shapes = {name: (x.dtype, x.shape[1:]) for name, (x, _) in pairs.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise DataError(
                f"client {name!r}: inputs are {shape[0]}{shape[1]}, those of client {first!r} are"
                f" {shapes[first][0]}{shapes[first][1]}; all clients need the same"
            )
    out = {
        "x": np.concatenate([x for x, _ in pairs.values()]),
        "y": np.concatenate([y for _, y in pairs.values()]),
        "device": np.repeat(np.arange(len(pairs)), [len(y) for _, y in pairs.values()]),
    }
    if test is not None:
        out["x_test"], out["y_test"] = _pair("test", test)
    if labels is not None:
        out["labels"] = np.array(list(labels), str)
    return out


def _pair(what: str, held: Any) -> Examples:
    """Returns ``(x, y)`` as arrays; a ``tf.data.Dataset`` of pairs is read whole."""
    if hasattr(held, "as_numpy_iterator"):
        both = list(held.unbatch().as_numpy_iterator() if _is_batched(held) else held.as_numpy_iterator())
        held = (np.array([x for x, _ in both]), np.array([y for _, y in both]))
    if not isinstance(held, (tuple, list)) or len(held) != 2:
        raise DataError(f"{what}: expected (x, y), got {type(held).__name__}")
    x, y = (np.asarray(part) for part in held)
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise DataError(f"{what}: expected x [n, …] and integer classes y [n], got x{x.shape} and y{y.shape}")
    if not len(y):
        raise DataError(f"{what}: holds no example; leave it out")
    if y.dtype.kind not in "iu":
        raise DataError(f"{what}: expected integer classes y [n], got {y.dtype}; argmax one-hot rows, number texts")
    return (x if x.dtype == np.uint8 else x.astype(np.float32)), y.astype(np.int64)


def _is_batched(dataset: Any) -> bool:
    _, y = dataset.element_spec
    return y.shape.rank == 1 and y.shape[0] is None


def _builder(model: Any) -> Callable[..., Any]:
    """Returns what builds the model anew for every worker; a built one is copied with its weights."""
    if callable(model) and not hasattr(model, "trainable_variables"):
        return partial(build_model, model)
    if not hasattr(model, "get_config") or not getattr(model, "built", False):
        raise ModelError(f"model: expected a function, a built Keras model or a name, got {type(model).__name__}")
    return partial(build_model, partial(_copy, model.get_config(), type(model), model.get_weights()))


def _copy(config: dict[str, Any], kind: type, weights: list[np.ndarray]) -> Any:
    made: Any = kind.from_config(config)  # type: ignore[attr-defined]
    made.set_weights(weights)
    return made
