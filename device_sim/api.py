"""The Python door: a federation in memory or in a run folder, keys of an experiment as keywords.

`fl-mobile simulate` opens a federation, makes a `Run` of it and calls ``finish``.

>>> import numpy as np, device_sim
>>> clients = {"anna": (x0, y0), "ben": (x1, y1)}  # doctest: +SKIP
>>> run = device_sim.simulate(build_model, clients, test=(x, y), rounds=20, cohort=2, upload="ecsq")  # doctest: +SKIP
>>> for round in run: print(round.accuracy, round.upload_bytes)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_sim.client_data.given import asked_clients, given_arrays, pair_of
from device_sim.engines.trainers.steps import as_it_was
from device_sim.experiment.as_compiled import left_open, like
from device_sim.experiment.data import ON_DEMAND
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.keywords import changes_of, key_of
from device_sim.experiment.toml import as_toml, parse_experiment, read_experiment, to_toml
from device_sim.run import folder as run_folder
from device_sim.run.going_on import check_goes_on, rewrite
from device_sim.run.log import Round, read_rounds
from device_sim.run.objects import PYTHON, builder_of, check_objects, identity_of, importable_name, keep_objects
from fl_mobile.errors import ConfigError
from fl_mobile.local.compiled import compiled_of
from fl_mobile.measurements.sources import read_updates
from fl_mobile.models import keras_bridge
from fl_mobile.storage.files import write_atomic
from fl_mobile.storage.npz import write_arrays
from fl_mobile.table import own_parts_named
from fl_mobile.tasks import AUTO, task_row
from fl_mobile.tensors import Tensors

if TYPE_CHECKING:
    from device_sim.federation.federation import Federation

_LOG = logging.getLogger("fl_mobile.compiled")
Examples = tuple[np.ndarray, np.ndarray]
Clients = str | Mapping[Any, Any] | Sequence[Any] | Callable[[int], Any]
Callback = Callable[["Run", Round], object]


@dataclass(frozen=True)
class Report:
    """A written report; a notebook shows it inline.

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

    def __init__(
        self,
        federation: Federation,
        folder: run_folder.RunFolder,
        *,
        fresh: bool = False,
        temporary: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Takes what `simulate` opened.

        Args:
            fresh: Whether the folder goes away where the first round fails.
            temporary: The folder it lies in, which goes away with the run.
            callbacks: Each is called with the run and every new round.
        """
        self._federation, self._temporary, self._stopped = federation, temporary, False
        self._folder = replace(folder, passing=temporary is not None)
        self._fresh, self._callbacks = fresh and temporary is None, tuple(callbacks)
        self._playing: Generator[Round, None, None] | None = None
        self.path, self.experiment = folder.path, federation.experiment
        self.rounds: list[Round] = []

    def __iter__(self) -> Iterator[Round]:
        """Yields every round, finished ones first; stopped early, it goes on where it was."""
        self._let_go()
        self._playing = self._locked()
        return self._playing

    def __repr__(self) -> str:
        seen = [r.accuracy for r in self.rounds if r.accuracy is not None]
        told = f"{len(self.rounds)} rounds" + (f", accuracy {seen[-1]:.4f}" if seen else "")
        return f"<Run of {self._federation.data.population} clients: {told}>"

    def _locked(self) -> Generator[Round, None, None]:
        with run_folder.locked(self._folder):
            yield from self._rounds()

    def _rounds(self) -> Iterator[Round]:
        from device_sim.report import tensorboard
        from device_sim.run.loop import simulate as play

        self.rounds, self._stopped = [], False
        already = len(read_rounds(self._folder))
        try:
            played = play(self._federation, self._folder)
            for round in _each_as_it_was(played if self._temporary else tensorboard.recorded(played, self.path)):
                self.rounds.append(round)
                if len(self.rounds) > already:
                    for call in self._callbacks:
                        call(self, round)
                yield round
                if self._stopped:
                    return
        except Exception:
            if self._fresh:
                run_folder.discard(self._folder)
            raise

    def _let_go(self) -> None:
        if self._playing is not None:
            self._playing.close()
            self._playing = None

    def stop(self) -> None:
        """Ends the iteration that is under way after the round it is at; iterate again, and it goes on."""
        self._stopped = True

    def finish(
        self,
        *,
        recipes: Sequence[str] | None = None,
        progress: bool | None = None,
        command: str = "device_sim.simulate(…)",
        say: Callable[[str], None] | None = None,
        sign_with: Any = None,
        license: str = "",
    ) -> Run:
        """Plays all rounds that are left; a run folder that is kept then holds what the command line leaves there.

        That is ``model.keras``, ``summary.json`` and the bundle. A run in memory is not written anywhere.

        Args:
            recipes: TFLite variants of the bundle; by default those of ``output.recipes``, and ``[]`` exports none.
            progress: Whether rounds are told on stderr; by default on a terminal and in a notebook.
            command: What made the run, for its summary.
            say: Told before each step after the last round.
            sign_with: Key that signs the bundle.
            license: Of the exported weights.

        Raises:
            DivergedError, ExportError, RunError: What failed; finished rounds are safe, and resume.
        """
        from device_sim.run.finish import finish
        from device_sim.run.progress import follow, in_notebook
        from export.bundles.signing import read_signing_key

        self._let_go()
        quiet = not (sys.stderr.isatty() or in_notebook()) if progress is None else not progress
        wanted, key = self.experiment.output.recipes if recipes is None else recipes, self.experiment.output.sign
        with run_folder.locked(self._folder):
            already = len(read_rounds(self._folder))
            score = task_row(self._federation.dataset.task).score_name
            limit = self.experiment.train.rounds
            rounds = list(follow(self._rounds(), limit, already, quiet=quiet, score=score))
            if self._temporary is None and not self._stopped:
                with as_it_was():
                    finish(
                        *(self._federation, self._folder, rounds),
                        command=command,
                        recipes=wanted,
                        say=say or (lambda _: None),
                        sign_with=sign_with or (read_signing_key(Path(key)) if key else None),
                        license=license or self.experiment.output.license,
                    )
        return self

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of a finished run that is kept."""
        from device_sim.run.summary import read_summary

        found = read_summary(self._folder)
        if found is None:
            raise ConfigError("this run has no summary: give simulate out=FOLDER, and call finish()")
        return found

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
        from device_sim.run.loop import restore

        self._last()
        with as_it_was():
            model = self._federation.build()
            keras_bridge.write(model, self._federation.whole(restore(self._federation, self._folder)[0].model))
        return model

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """Returns ``accuracy`` and ``loss`` of the global model on ``x`` and targets ``y``, or ``tf.data`` of both."""
        from device_sim.run.loop import restore

        state, _ = restore(self._federation, self._folder)
        plan = self._federation.plan(max(0, state.round_num - 1))
        examples = pair_of("evaluate", x if y is None else (x, y), self._federation.dataset.task)
        with as_it_was():
            score = self._federation.engine.evaluate(self._federation.whole(state.model), *examples, plan)
        return {"accuracy": score.accuracy, "loss": score.loss}

    def report(self, file: str | Path | None = None) -> Report:
        """Writes the HTML report of the finished rounds and returns it; a notebook shows it inline.

        Args:
            file: Where to; ``report.html`` in the run folder without it.
        """
        from device_sim.report import page, read_runs

        self._last()
        path = Path(file) if file else self.path / "report.html"
        write_atomic(path, (html := page(read_runs([self.path]))).encode())
        return Report(path, html)

    def close(self) -> None:
        """Ends the engine's workers, and removes a temporary run folder."""
        self._let_go()
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
    test: Examples | Any = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    labels: Sequence[str] | None = None,
    experiment: str | Path | Experiment | None = None,
    callbacks: Sequence[Callback] = (),
    **keys: Any,
) -> Run:
    """Opens a federation and returns it as a `Run`, of which no round has been played yet.

    The same experiment gives the same bytes as on the command line.

    Args:
        model: A function that builds a Keras model (called with those of ``input_shape``, ``num_classes``,
            ``input_scale`` and ``seed`` that it takes), a built Keras model, ``"package.module:function"``, or a name
            from ``fl-mobile models``. What it was compiled with holds where no key says otherwise.
        clients: Client → ``(x, y)``, as a mapping or a sequence: ``x`` ``uint8[n, height, width, channels]`` pixels or
            ``float32[n, …]``, ``y`` classes ``int[n]`` or another task's targets; or a ``tf.data.Dataset`` of pairs. A
            function of a number 0 to ``devices`` − 1 is asked for that client's whenever it trains. Or a dataset's
            name, dealt out as ``[data]`` says.
        test: Held-out ``(x, y)`` of the server; without it a fifth of what clients hold is held out.
        out: Run folder to keep; without it the run lives in a temporary folder.
        resume: Whether ``out`` holds a run that is to go on; with another ``rounds`` it goes on further.
        labels: Names of the classes.
        experiment: TOML file or record that the keywords change; the defaults without it.
        callbacks: Each is called with the run and every new round; ``run.stop()`` ends the iteration.
        **keys: Keys of the experiment: ``rounds=20``, ``epochs=2``, ``server_learning_rate=0.1``; ``-`` and ``.`` of a
            key are ``_``, and the section can be left out where one key alone ends so; of several, [train] has it.

    Raises:
        ConfigError, DataError, ModelError: What is wrong, and what to do.
    """
    from device_sim.federation.dealing import with_sums_released
    from device_sim.federation.federation import open_federation
    from device_sim.run.finish import check_before_training

    changes = changes_of(keys)
    given = {key_of(name): value for name, value in keys.items()}
    temporary, path = None, Path(out or "")
    if out is None:
        temporary = tempfile.TemporaryDirectory(prefix="fl-mobile-")
        path = Path(temporary.name) / "run"
    task = str(given.get("task.name", AUTO))
    arrays, asked, objects = None, None, dict[str, str]()
    if isinstance(clients, str):
        changes.append(f"data.dataset={as_toml(clients)}")
    elif callable(clients):
        arrays, asked = asked_clients(clients, given.get("data.devices"), test, labels, task=task)
        objects["clients"] = identity_of(clients)
    else:
        arrays = given_arrays(clients, test, labels, task)
    if arrays is not None:
        population = asked.population if asked else len(np.unique(arrays["device"]))
        changes += ['data.dataset="npz"', f"data.path={as_toml(str(path / run_folder.ARRAYS))}"]
        changes += [f"data.partition={as_toml(ON_DEMAND if asked else 'natural')}", f"data.devices={population}"]
        changes += [] if "train.cohort" in given else [f"train.cohort={min(10, population)}"]
    name = model if isinstance(model, str) else importable_name(model)
    objects |= {} if name else {"model": identity_of(model)}
    changes.append(f"model.name={as_toml(name or PYTHON)}")
    with own_parts_named():
        chosen, open_keys = _experiment(experiment, changes)
    with as_it_was(), own_parts_named(), contextlib.ExitStack() as stack:
        if temporary is not None:
            stack.callback(temporary.cleanup)
        if resume:
            folder, chosen = _reopened(path, chosen, open_keys, objects, arrays)
            open_keys = frozenset()
        else:
            folder = run_folder.create(path, chosen)
            stack.callback(run_folder.discard, folder)
            if arrays is not None:
                write_arrays(folder.arrays, arrays)
            keep_objects(folder, objects)
        build = builder_of(model) if name is None else None
        chosen = chosen if resume else with_sums_released(chosen)
        federation = open_federation(chosen, build, open_keys=open_keys, compiled=compiled_of(model), data=asked)
        stack.callback(federation.engine.close)
        if temporary is None and chosen.output.recipes:
            check_before_training(federation, chosen.output.recipes, _LOG.info)
        if federation.compiled and not resume:
            _LOG.warning("%s", federation.compiled)
        if not resume:  # what its own compile() and its devices' sums said is part of it now
            write_atomic(folder.experiment, to_toml(federation.experiment).encode())
        run = Run(federation, folder, fresh=not resume, temporary=temporary, callbacks=callbacks)
        stack.pop_all()
    return run


def _each_as_it_was(rounds: Iterator[Round]) -> Iterator[Round]:
    """Yields rounds; what happens to them between two is no business of ours, and ours none of theirs."""
    while True:
        with as_it_was(), own_parts_named():
            done = next(rounds, None)
        if done is None:
            return
        yield done


def _experiment(base: str | Path | Experiment | None, changes: Sequence[str]) -> tuple[Experiment, frozenset[str]]:
    """Returns the experiment and what it leaves open for the model's ``compile()`` to say; a record leaves nothing."""
    if isinstance(base, (str, Path)):
        return read_experiment(Path(base), changes), left_open(Path(base).read_text(encoding="utf-8"), changes)
    text = to_toml(base) if base else ""
    return parse_experiment(text, changes), left_open(text, changes)


def _reopened(
    path: Path,
    wanted: Experiment,
    open_keys: frozenset[str],
    objects: Mapping[str, str],
    arrays: Mapping[str, np.ndarray] | None,
) -> tuple[run_folder.RunFolder, Experiment]:
    """Returns the folder of a run that goes on, and its experiment.

    Raises:
        RunError: It is another run.
    """
    folder, stored = run_folder.reopen(path)
    check_objects(folder, objects, arrays)
    if arrays is not None and folder.arrays.exists():  # however the same folder was written then
        wanted = replace(wanted, data=replace(wanted.data, path=stored.data.path))
    wanted = like(wanted, stored, open_keys)
    check_goes_on(path, stored, wanted, read_rounds(folder))
    rewrite(folder, wanted)
    return folder, wanted
