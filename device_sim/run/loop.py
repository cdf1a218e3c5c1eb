"""The loop: one round after another, each finished one safe on disk before the next begins.

```
restore ─▶ play_round ─▶ evaluate ─▶ rounds.jsonl ─▶ best/ ─▶ checkpoint ─▶ stop?
              ▲──────────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from device_sim.engines import Evaluation
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.masks import SUMLESS_ROUNDS
from device_sim.federation.federation import Federation
from device_sim.rounds import Play, server_of
from device_sim.rounds.memory import FleetMemory
from device_sim.run.backdoor import backdoor_success
from device_sim.run.best import best_round, put_best, rewind_best
from device_sim.run.errors import kept_errors
from device_sim.run.evaluation import distribution, evaluate_devices, metrics_of
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round, append_round, append_timeline, rewind, scores_of
from device_sim.run.privacy import begin, budget_spent, spent_by
from fl_mobile.errors import DivergedError
from fl_mobile.records import ServerState
from fl_mobile.server import checkpoint
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import fp32_bytes


def simulate(federation: Federation, folder: RunFolder, play: Play | None = None) -> Iterator[Round]:
    """Yields rounds, those already on disk first, until the experiment's stop rule.

    Args:
        play: One server step; None is that of ``clock.mode`` on simulated clients.

    Same experiment, same bytes in every packet and same final weights: whatever the engine's workers, and however
    often the process was killed and started again.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round. The run stays at the round before.
        TrainingError: TensorFlow failed in the middle of a step; all of its text is in the run's errors.txt.
        RunError: The folder's checkpoint or log is damaged.
    """
    memory = FleetMemory(Shelf(folder.memory))
    state, rounds = restore(federation, folder, memory)
    rewind_best(folder, state.round_num)
    best = best_round(federation.experiment, rounds)
    if not rounds:
        state = begin(federation, folder, state, memory)
    yield from rounds
    play, shown = play or server_of(federation), timeline_rounds(federation.experiment)
    while not stop_reason(federation.experiment, rounds):
        started = time.perf_counter()
        with kept_errors(folder, f"round {state.round_num + 1}", safe=state.round_num):
            state, report, traffic = play(federation, memory, state, folder.updates)
            score = _score(federation, state)
            on_devices = _device_accuracy(federation, memory.shelf, state)
            backdoor = None if score is None else backdoor_success(federation, state)
        done = Round(
            round_num=report.round_num,
            accuracy=None if score is None else score.accuracy,
            loss=None if score is None else score.loss,
            train_loss=None if math.isnan(report.loss) else report.loss,
            cohort=traffic.asked,
            accepted=report.accepted,
            dropped=dict(sorted((traffic.lost + Counter(report.dropped)).items())),
            upload_bytes=traffic.upload_bytes,
            download_bytes=traffic.download_bytes,
            uploads=traffic.uploads,
            downloads=traffic.downloads,
            ratio=fp32_bytes(state.spec) * traffic.uploads / traffic.upload_bytes if traffic.uploads else None,
            air_seconds=traffic.air_seconds,
            wall_seconds=time.perf_counter() - started,
            sim_seconds=traffic.end,
            skipped=dict(sorted(traffic.skipped.items())),
            saved_bytes=traffic.saved_bytes,
            joules=traffic.joules,
            staleness=report.staleness,
            weights_norm=report.weights_norm,
            device_accuracy=on_devices,
            malicious=dict(traffic.malicious),
            masks=dict(traffic.masks),
            backdoor=backdoor,
            privacy=spent_by(federation, state, memory),
            metrics={} if score is None else metrics_of(federation, score),
        )
        if report.round_num in shown:
            append_timeline(folder, traffic.timeline(report.round_num))
        # Log first, checkpoint second: a crash between the two leaves a line that `restore` drops and plays again.
        append_round(folder, done)
        if best_round(federation.experiment, [done], best) is done:
            best = done
            put_best(folder, done.round_num, state.model)
        memory.shelf.sync()
        checkpoint.save(folder.checkpoint, state, memory.as_json())
        rounds.append(done)
        yield done


def restore(
    federation: Federation, folder: RunFolder, memory: FleetMemory | None = None
) -> tuple[ServerState, list[Round]]:
    """Returns the state to go on from and the finished rounds; a new run starts at the engine's first weights.

    Args:
        memory: Is set back to the same moment, if given.
    """
    if not folder.checkpoint.exists():
        if memory:
            memory.restore({}, 0)
        return federation.algorithm.init(federation.initial, federation.spec), rewind(folder, 0)
    state, kept = checkpoint.load(folder.checkpoint, federation.spec)
    if memory:
        memory.restore(kept, state.round_num)
    return state, rewind(folder, state.round_num)


def stop_reason(experiment: Experiment, rounds: Sequence[Round]) -> str:
    """Returns why the run is over, or an empty string."""
    stop, limit = experiment.stop, experiment.train.rounds
    settled = [score for score in scores_of(rounds) if score.round_num >= experiment.train.settled_round]
    if stop.target_accuracy and settled and settled[-1].accuracy >= stop.target_accuracy:
        return f"reached target accuracy {stop.target_accuracy:g}"
    if stop.patience and settled:
        best = min(settled, key=lambda score: score.loss)
        if settled[-1].round_num - best.round_num >= stop.patience:
            return f"held-out loss has not improved for {stop.patience} rounds"
    if len(rounds) >= limit:
        return f"finished {limit} rounds"
    if experiment.masks.on and len(rounds) >= SUMLESS_ROUNDS and not any(r.accepted for r in rounds[-SUMLESS_ROUNDS:]):
        return (
            f"{SUMLESS_ROUNDS} rounds in a row gave no sum: more devices leave a group than masks.dropouts"
            f" {experiment.masks.dropouts:g} allows; the model is that of the last round with one"
        )
    return budget_spent(experiment, rounds)


def timeline_rounds(experiment: Experiment) -> frozenset[int]:
    """Returns the rounds whose devices are kept in ``timeline.jsonl``: the first, the last and some between."""
    count, rounds = min(experiment.output.timeline_rounds, experiment.train.rounds), experiment.train.rounds
    return frozenset(round(i * (rounds - 1) / max(1, count - 1)) for i in range(count))


def _score(federation: Federation, state: ServerState) -> Evaluation | None:
    """Returns what the test set says of the new model, None in the rounds that evaluation.interval leaves out."""
    experiment, round_num = federation.experiment, state.round_num - 1
    if state.round_num % experiment.evaluation.interval and state.round_num < experiment.train.rounds:
        for path, value in state.weights.items():
            if not np.isfinite(value).all():
                raise _diverged(round_num, f"tensor '{path}' of the new global model is not finite")
        return None
    weights, test = federation.whole(state.model), federation.dataset.test
    y = federation.dataset.trained_targets(test.y, test.weight)
    score = federation.engine.evaluate(weights, test.x, y, federation.plan(round_num))
    if not math.isfinite(score.loss):
        raise _diverged(round_num, f"the held-out loss of the new global model is {score.loss}")
    return score


def _diverged(round_num: int, what: str) -> DivergedError:
    return DivergedError(f"round {round_num + 1}: {what}. Lower train.learning-rate or server.learning-rate.")


def _device_accuracy(federation: Federation, shelf: Shelf, state: ServerState) -> dict[str, float]:
    every = federation.experiment.evaluation.every
    if not every or state.round_num % every:
        return {}
    scores = evaluate_devices(federation, shelf, state)
    return distribution(scores).accuracy if scores else {}
