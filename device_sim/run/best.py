"""The weights of the best round so far, ``best/<round>.npz``: a run that gets worse again still has its best model.

The file before the newest is kept as well: a crash between a new best and its checkpoint goes back to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.kept import BEST, LAST, kept_by
from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder
from device_sim.run.keras_file import write_model
from device_sim.run.log import Round
from fl_mobile.errors import RunError
from fl_mobile.models import keras_bridge
from fl_mobile.models.ends import author_of
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Tensors


@dataclass(frozen=True)
class Kept:
    """A model of the run.

    Attributes:
        round_num: After which it was the global one.
        weights: Of what travels.
    """

    round_num: int
    weights: Tensors


def best_round(experiment: Experiment, rounds: Iterable[Round], best: Round | None = None) -> Round | None:
    """Returns the first of the best rounds by output.keep-by, None where none counts.

    Rounds count that were evaluated on the held-out test set, once the model is as small as it shall be.

    Args:
        best: Of the rounds before these.
    """
    metric = kept_by(experiment.output.keep_by)
    for done in rounds:
        if done.accuracy is None or done.round_num < experiment.train.settled_round:
            continue
        value, held = metric.of(done), None if best is None else metric.of(best)
        if value is not None and (held is None or (value > held if metric.larger_is_better else value < held)):
            best = done
    return best


def put_best(folder: RunFolder, round_num: int, weights: Tensors) -> None:
    """Stores the weights of a new best round; called before the round's checkpoint."""
    write_arrays(_file(folder, round_num), {str(i): value for i, value in enumerate(weights.values())})
    for old in _rounds(folder)[:-2]:
        _file(folder, old).unlink()


def rewind_best(folder: RunFolder, finished: int) -> None:
    """Deletes what rounds from ``finished`` on have put: they will be played again."""
    for late in _rounds(folder):
        if late >= finished:
            _file(folder, late).unlink()


def kept_models(
    experiment: Experiment, folder: RunFolder, rounds: Sequence[Round], last: Tensors
) -> tuple[Kept, Kept | None]:
    """Returns the model that output.keep asks for, and the other one; None where both are of the same round.

    Args:
        last: Weights after the last round.

    Raises:
        RunError: The best round's file is missing or damaged.
    """
    final, best = Kept(rounds[-1].round_num, last), best_round(experiment, rounds)
    if best is None or best.round_num == final.round_num:
        return final, None
    other = Kept(best.round_num, _get(folder, best.round_num, last))
    return (other, final) if experiment.output.keep == BEST else (final, other)


def beside_name(keep: str) -> str:
    """Returns what the file of the model is called that output.keep did not ask for.

    >>> beside_name("last"), beside_name("best")
    ('model-best.keras', 'model-last.keras')
    """
    return f"model-{LAST if keep == BEST else BEST}.keras"


def write_models(federation: Federation, folder: RunFolder, kept: Kept, beside: Kept | None) -> Any:
    """Writes ``model.keras`` and the model beside it; returns the former as a Keras model."""
    model, keep = federation.build(), federation.experiment.output.keep
    for name in {beside_name(LAST), beside_name(BEST)} - ({beside_name(keep)} if beside else set()):
        (folder.path / name).unlink(missing_ok=True)  # of an earlier end of this run
    if beside:
        keras_bridge.write(model, federation.whole(beside.weights))
        write_model(folder.path / beside_name(keep), author_of(model))
    keras_bridge.write(model, federation.whole(kept.weights))
    write_model(folder.model, author_of(model))
    return model


def _get(folder: RunFolder, round_num: int, like: Tensors) -> Tensors:
    path = _file(folder, round_num)
    try:
        arrays = read_arrays(path)
        found = {name: arrays[str(i)] for i, name in enumerate(like)}
        if any(a.shape != like[name].shape or a.dtype != np.float32 for name, a in found.items()):
            raise ValueError("not the shapes of this model")
        return found
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise RunError(
            f"{path}: the weights of the best round are damaged or missing ({error}); restore the file from a copy"
        ) from None


def _file(folder: RunFolder, round_num: int) -> Path:
    return folder.best / f"{round_num}.npz"


def _rounds(folder: RunFolder) -> list[int]:
    if not folder.best.is_dir():
        return []
    return sorted(int(path.stem) for path in folder.best.iterdir() if path.suffix == ".npz" and path.stem.isdigit())
