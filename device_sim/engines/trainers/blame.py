"""What TensorFlow or Keras says in the middle of a step, as one line: device, layer, operation, reason."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from device_sim.engines.records import NOBODY, Task
from fl_mobile.errors import FlMobileError, TrainingError
from fl_mobile.models.telling import reason_of, where

T = TypeVar("T")


def blamed(
    model: Any, work: Callable[[Sequence[Task]], Sequence[T]], tasks: Sequence[Task], *, doing: str = "training"
) -> Sequence[T]:
    """Returns ``work(tasks)``; what goes wrong in it is told in one line, with the device it goes wrong on.

    Args:
        model: A Keras model, whose layers are looked for in the text; None where there is none any more.
        work: Trains or evaluates.
        tasks: Of one chunk.
        doing: What ``work`` is.

    Raises:
        TrainingError: Its ``details`` hold the whole text.
    """
    try:
        return work(tasks)
    except (FlMobileError, MemoryError):
        raise
    except Exception as error:  # TensorFlow and Keras have no common root
        found, device = _alone(work, tasks) or (error, None)
        place, reason = where(model, str(found)), reason_of(found)
        on = _told([task.device for task in tasks] if device is None else [device])
        details = "".join(traceback.format_exception(found))
        raise TrainingError(f"{on}: {doing} failed{place}: {reason}", details=details) from None


def _alone(work: Callable[[Sequence[Task]], Any], tasks: Sequence[Task]) -> tuple[Exception, int] | None:
    """Returns what goes wrong and on which device, one device after the other."""
    for task in tasks:
        try:
            work([task])
        except Exception as error:  # the same again, of one device
            return error, task.device
    return None


def _told(devices: Sequence[int]) -> str:
    if NOBODY in devices:
        return "the server's examples"
    return f"device {devices[0]}" if len(devices) == 1 else f"devices {devices[0]}–{devices[-1]}"
