"""Curves over rounds, simulated time and bytes; every number comes from ``rounds.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from device_sim.report.charts import Line, LineChart, Note
from device_sim.report.runs import Run
from device_sim.report.units import BYTES, JOULES, SECONDS, unit_for
from device_sim.run.log import Round, Score, scores_of

LOG_FACTOR = 8
"""Runs whose traffic differs by more than this are compared on a logarithmic axis."""

Of = Callable[[Round], float | None]
"""None leaves the round out."""


def total_bytes(rounds: Sequence[Round]) -> list[int]:
    """Returns bytes of all devices, up and down, from the start to the end of each round."""
    return list(accumulate(r.upload_bytes + r.download_bytes for r in rounds))


def upload_ratio(rounds: Sequence[Round]) -> float | None:
    """Returns float32 bytes of all uploads divided by their packets' bytes; None if nobody sent one.

    A round's ratio is that of its mean packet, so the sum of packets is (uploads / ratio) models.
    """
    sent = [r for r in rounds if r.ratio]
    return sum(r.uploads for r in sent) / sum(r.uploads / r.ratio for r in sent if r.ratio) if sent else None


def accuracy_by_round(runs: Sequence[Run]) -> LineChart:
    """Returns held-out accuracy of the global model after each round."""
    return LineChart(
        key="accuracy-rounds",
        title="Accuracy against rounds",
        says="Held-out accuracy of the global model after each round.",
        x_label="round",
        y_label="accuracy, %",
        lines=tuple(_line(i, run, [r.round_num + 1 for r in run.rounds]) for i, run in enumerate(runs)),
    )


def accuracy_by_time(runs: Sequence[Run]) -> LineChart | Note:
    """Returns held-out accuracy against the virtual clock, or a note if no run has one."""
    timed = [(i, run) for i, run in enumerate(runs) if run.rounds[-1].sim_seconds > 0]
    if not timed:
        return Note("Accuracy against simulated time", "These runs carry no simulated time.")
    one, unit = unit_for([run.rounds[-1].sim_seconds for _, run in timed], SECONDS)
    left_out = f" Without simulated time: {_names(runs, timed)}." if len(timed) < len(runs) else ""
    return LineChart(
        key="accuracy-time",
        title="Accuracy against simulated time",
        says="Virtual clock of the fleet at the end of each round: compute, transfer and waiting of the devices."
        + left_out,
        x_label=f"simulated time, {unit}",
        y_label="accuracy, %",
        lines=tuple(_line(i, run, [r.sim_seconds / one for r in run.rounds]) for i, run in timed),
    )


def accuracy_by_bytes(runs: Sequence[Run]) -> LineChart:
    """Returns held-out accuracy against all bytes that travelled so far."""
    totals = [total_bytes(run.rounds) for run in runs]
    ends = [float(total[-1]) for total in totals]
    one, unit = unit_for(ends, BYTES)
    return LineChart(
        key="accuracy-bytes",
        title="Accuracy against bytes",
        says="Lengths of all packets so far, up and down, lost transfers included.",
        x_label=f"travelled, {unit}",
        y_label="accuracy, %",
        lines=tuple(
            _line(i, run, [t / one for t in total]) for i, (run, total) in enumerate(zip(runs, totals, strict=True))
        ),
        # The cheapest run would be a vertical stroke at the edge of the dearest one's axis.
        log_x=max(ends) > LOG_FACTOR * min(ends) and min(total[0] for total in totals) > 0,
    )


def held_out_loss(runs: Sequence[Run]) -> LineChart:
    """Returns held-out loss after each round."""
    rounds = [[r.round_num + 1 for r in run.rounds] for run in runs]
    return LineChart(
        key="loss-rounds",
        title="Loss against rounds",
        says="Mean held-out loss of the global model after each round.",
        x_label="round",
        y_label="loss",
        lines=tuple(_line(i, run, x, lambda r: r.loss) for i, (run, x) in enumerate(zip(runs, rounds, strict=True))),
    )


def accuracy_difference(runs: Sequence[Run]) -> LineChart:
    """Returns each later run's accuracy minus the first one's, round by round, in points."""
    first, *others = runs
    lines = []
    for color, run in enumerate(others, 1):
        pairs = score_pairs(first.rounds, run.rounds)
        y = tuple(100 * (b.accuracy - a.accuracy) for a, b in pairs)
        lines.append(Line(run.label, color, tuple(float(a.round_num + 1) for a, _ in pairs), y))
    return LineChart(
        key="accuracy-difference",
        title=f"Accuracy minus that of {first.label}",
        says="Round by round, in points; above the line is better than the first run.",
        x_label="round",
        y_label="difference, points",
        lines=tuple(lines),
        zero=True,
    )


def ratios(runs: Sequence[Run]) -> LineChart | Note:
    """Returns float32 bytes over packet bytes of the uploads, by round; rounds without an upload have no point."""
    lines = []
    for color, run in enumerate(runs):
        sent = [(float(r.round_num + 1), r.ratio) for r in run.rounds if r.ratio is not None]
        if sent:
            lines.append(Line(run.label, color, tuple(x for x, _ in sent), tuple(y for _, y in sent)))
    if not lines:
        return Note("Compression", "No device sent an update, so there is no ratio.")
    return LineChart(
        key="upload-ratio",
        title="Compression of the uploads",
        says="Float32 bytes of the model divided by the mean packet, with all headers, tables and checksums.",
        x_label="round",
        y_label="times smaller",
        lines=tuple(lines),
    )


def energy(runs: Sequence[Run]) -> LineChart | Note:
    """Returns what all devices of a round spent, compute and radio."""
    spent = [(i, run) for i, run in enumerate(runs) if any(r.joules for r in run.rounds)]
    if not spent:
        return Note("Energy", "These runs carry no energy: their devices have no battery model.")
    one, unit = unit_for([r.joules for _, run in spent for r in run.rounds], JOULES)
    return LineChart(
        key="energy",
        title="Energy of a round",
        says="Compute and radio of all devices of the round, simulated.",
        x_label="round",
        y_label=f"energy, {unit}",
        lines=tuple(_line(i, run, [r.round_num + 1 for r in run.rounds], lambda r: r.joules / one) for i, run in spent),
    )


def backdoor(runs: Sequence[Run]) -> LineChart | None:
    """Returns how often a backdoor works after each round; None if no run has one."""
    attacked = [(i, run) for i, run in enumerate(runs) if any(r.backdoor is not None for r in run.rounds)]
    if not attacked:
        return None
    return LineChart(
        key="backdoor",
        title="Success of the backdoor",
        says="Share of stamped test pictures of other classes that are taken for the attackers' class.",
        x_label="round",
        y_label="success, %",
        lines=tuple(
            _line(i, run, [r.round_num + 1 for r in run.rounds], lambda r: _percent(r.backdoor)) for i, run in attacked
        ),
    )


def epsilon(runs: Sequence[Run]) -> LineChart | None:
    """Returns the ε that the rounds so far have spent, of the runs with [privacy]; None if no run has any."""
    private = [(i, run) for i, run in enumerate(runs) if any(r.privacy for r in run.rounds)]
    if not private:
        return None
    left_out = f" Without privacy: {_names(runs, private)}." if len(private) < len(runs) else ""
    return LineChart(
        key="epsilon-rounds",
        title="ε spent",
        says="What all rounds so far reveal of one device at most, by the ledger; what it is about stands below."
        + left_out,
        x_label="round",
        y_label="ε",
        lines=tuple(
            _line(i, run, [r.round_num + 1 for r in run.rounds], lambda r: r.privacy.get("epsilon"))
            for i, run in private
        ),
    )


def clip_norm(runs: Sequence[Run]) -> LineChart | None:
    """Returns the clipping norms of private runs, where one of them moved; else None."""
    norms = [(i, run, {r.privacy["clip_norm"] for r in run.rounds if r.privacy}) for i, run in enumerate(runs)]
    if not any(len(each) > 1 for _, _, each in norms):
        return None
    return LineChart(
        key="clip-norms",
        title="Clipping norm",
        says="L2 norm that updates of the next round are clipped to; follows a noised quantile of the clients' norms.",
        x_label="round",
        y_label="norm",
        lines=tuple(
            _line(i, run, [r.round_num + 1 for r in run.rounds], lambda r: r.privacy.get("clip_norm"))
            for i, run, each in norms
            if each
        ),
    )


def score_pairs(first: Sequence[Round], other: Sequence[Round]) -> list[tuple[Score, Score]]:
    """Returns the scores of rounds in which both runs were evaluated."""
    others = {score.round_num: score for score in scores_of(other)}
    return [(score, others[score.round_num]) for score in scores_of(first) if score.round_num in others]


def _accuracy(done: Round) -> float | None:
    return _percent(done.accuracy)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _line(color: int, run: Run, x: Sequence[float], y: Of = _accuracy) -> Line:
    points = [(float(at), value) for at, value in zip(x, map(y, run.rounds), strict=True) if value is not None]
    return Line(run.label, color, tuple(at for at, _ in points), tuple(value for _, value in points))


def _names(runs: Sequence[Run], left: Sequence[tuple[int, Run]]) -> str:
    kept = {i for i, _ in left}
    return ", ".join(run.label for i, run in enumerate(runs) if i not in kept)
