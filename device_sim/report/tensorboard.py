"""Rounds as a TensorBoard event file: ``tensorboard --logdir RUN``.

The file follows from the rounds alone, so a resumed run writes the bytes it had once more and goes on: no round is
there twice. An event's "wall time" is the virtual clock, so that TensorBoard's *relative* axis is simulated time.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_sim.run.log import Round

FOLDER = "tb"
FILE = "events.out.tfevents.0.fl-mobile"
"""TensorBoard reads whatever has ``tfevents`` in its name; its own names hold time and host, ours repeats."""

SCALARS: dict[str, Callable[[Round], float | None]] = {
    "model/accuracy": lambda r: r.accuracy,
    "model/loss": lambda r: r.loss,
    "model/train_loss": lambda r: r.train_loss,
    "traffic/upload_bytes": lambda r: r.upload_bytes,
    "traffic/download_bytes": lambda r: r.download_bytes,
    "traffic/ratio": lambda r: r.ratio,
    "devices/accepted": lambda r: r.accepted,
    "devices/dropped": lambda r: sum(r.dropped.values()),
    "devices/skipped": lambda r: sum(r.skipped.values()),
    "fleet/sim_seconds": lambda r: r.sim_seconds,
    "fleet/joules": lambda r: r.joules,
}
"""Tag → its value in a round; None leaves the round out of that curve."""


def recorded(rounds: Iterable[Round], run: Path) -> Iterator[Round]:
    """Yields ``rounds``, each after it was added to the event file of the run folder ``run``.

    One event of about 400 bytes a round, written and flushed once: the cost does not grow with the rounds so far.

    Args:
        rounds: From the first on, also where a run is resumed.

    Raises:
        OSError: The file cannot be written.
    """
    import tensorflow as tf

    rest = iter(rounds)
    first = next(rest, None)  # before the file is touched: a run that cannot go on stays as it was
    if first is None:
        return
    path = run / FOLDER / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with _system_errors(path):
        writer = tf.io.TFRecordWriter(str(path))
        writer.write(tf.compat.v1.Event(file_version="brain.Event:2").SerializeToString())
    try:
        for done in itertools.chain([first], rest):
            with _system_errors(path):
                writer.write(_event(done).SerializeToString())
                writer.flush()
            yield done
    finally:
        with _system_errors(path):
            writer.close()


def _event(done: Round) -> Any:
    import tensorflow as tf

    values = {tag: value_of(done) for tag, value_of in SCALARS.items()}
    summary = tf.compat.v1.Summary(
        value=[
            tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if value is not None
        ]
    )
    return tf.compat.v1.Event(wall_time=done.sim_seconds, step=done.round_num + 1, summary=summary)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turns TensorFlow's own exceptions for a refusing disk into the system's."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, "No space left on device", str(path)) from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message, str(path)) from None
