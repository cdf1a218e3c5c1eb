"""Prints tables of docs/combinations.md: ``python -m tests.crossings.measure_tables noise|variates|feedback|late``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from fl_mobile.codecs import parse_codec
from tests.crossings.net import FLOAT32, WHO, each_seed
from tests.fl_mobile.real_updates import real_updates
from tests.fl_mobile.samples import nmse, through

SEEDS = (0, 1, 2)
NOISY = (
    *("q8", "q4", "q3", "q2", "q1", "q1:nearest", "terngrad", "qsgd:16", "flat+eden:1", "flat+eden:0.1"),
    *("ecsq:step=2", "ecsq", "ecsq:step=64", "ecsq:rounding=rdo,step=2"),
    *("topk:0.05+q8+deflate", "sign", "powersgd:2"),
)
VARIATES = {
    "FedAvg, float32": FLOAT32,
    "FedAvg, default": (),
    "SCAFFOLD, float32": ("server.algorithm=scaffold", *FLOAT32),
    "SCAFFOLD, default": ("server.algorithm=scaffold",),
    "SCAFFOLD, `topk:0.1+q8+deflate`": ("server.algorithm=scaffold", "upload.codec=topk:0.1+q8+deflate"),
    "FedDyn, float32": ("server.algorithm=feddyn", *FLOAT32),
    "FedDyn, default": ("server.algorithm=feddyn",),
    "FedNova, float32": ("server.algorithm=fednova", *FLOAT32),
    "FedNova, default": ("server.algorithm=fednova",),
}
FEEDBACK = {
    "`ecsq`": (),
    "`ecsq` @300": ("upload.target-ratio=300",),
    "`ecsq` @1000": ("upload.target-ratio=1000",),
    "`ecsq:rounding=rdo` @300": ("upload.codec=ecsq:rounding=rdo", "upload.target-ratio=300"),
    "`topk:0.05+q8+deflate`": ("upload.codec=topk:0.05+q8+deflate",),
    "`topk:0.001+q8+deflate`": ("upload.codec=topk:0.001+q8+deflate",),
    "`topk:0.003+q8+deflate`": ("upload.codec=topk:0.003+q8+deflate",),
    "`topk:0.01+q8+deflate`": ("upload.codec=topk:0.01+q8+deflate",),
    "`flat+topk:0.01+sign`": ("upload.codec=flat+topk:0.01+sign",),
    "`sign`": ("upload.codec=sign",),
    "`powersgd:2`": ("upload.codec=powersgd:2",),
    "`terngrad`": ("upload.codec=terngrad",),
}
LATE = {
    "synchronous": (),
    "asynchronous": WHO["asynchronous", "40 %"],
    "… `clock.staleness-exponent=0`": (*WHO["asynchronous", "40 %"], "clock.staleness-exponent=0"),
    "… `clock.staleness-exponent=1`": (*WHO["asynchronous", "40 %"], "clock.staleness-exponent=1"),
    "… `server.learning-rate=0.7`": (*WHO["asynchronous", "40 %"], "server.learning-rate=0.7"),
    "… `fleet.link=ideal`": (*WHO["asynchronous", "40 %"], "fleet.link=ideal"),
}
TASKS = ("digits", "drift", "mnist", "net")


def noise() -> Iterator[str]:
    """Yields ω of one client's update, mean of four encodings, codec by codec."""
    updates = real_updates()
    yield f"| codec | contracts | {' | '.join(updates)} |"
    yield "|---" * (len(updates) + 2) + "|"
    for text in NOISY:
        codec = parse_codec(text)
        found = [
            np.mean([nmse(update, through(codec, update, spec, key=key)) for key in range(4)])
            for spec, update in updates.values()
        ]
        yield f"| `{text}` | {'yes' if codec.contracts else 'no'} | {' | '.join(f'{x:.2g}' for x in found)} |"


def variates() -> Iterator[str]:
    """Yields final accuracies in percent, seed by seed, of what keeps control variates and what does not."""
    yield "| | digits | bytes | drift | bytes |"
    yield "|---|---|---|---|---|"
    for label, changes in VARIATES.items():
        yield f"| {label} | {' | '.join(' | '.join(_cell(changes, task)) for task in TASKS[:2])} |"


def feedback() -> Iterator[str]:
    """Yields final accuracies in percent without a memory and with error feedback, and the bytes of a mean upload."""
    yield f"| codec | {' | '.join(f'{task}: none · error feedback | bytes' for task in TASKS)} |"
    yield "|---" * (2 * len(TASKS) + 1) + "|"
    for label, changes in FEEDBACK.items():
        cells = []
        for task in TASKS:
            none, more = (_cell((*changes, f"upload.memory={name}"), task) for name in ("none", "error-feedback"))
            cells.append(f"{none[0]} · {more[0]} | {none[1]} · {more[1]}")
        yield f"| {label} | {' | '.join(cells)} |"


def late() -> Iterator[str]:
    """Yields the mean accuracy in percent of eight seeds of the net's task, and its standard error."""
    yield "| | accuracy |"
    yield "|---|---|"
    for label, changes in LATE.items():
        found = np.array(each_seed(changes, tuple(range(8))))[:, 0]
        yield f"| {label} | {found.mean():.1f} ± {found.std() / len(found) ** 0.5:.1f} |"


def _cell(changes: tuple[str, ...], task: str) -> tuple[str, str]:
    found = np.array(each_seed(changes, SEEDS, task))
    print(task, changes, found.tolist(), file=sys.stderr, flush=True)
    return f"{' '.join(f'{a:.1f}' for a in found[:, 0])} = {found[:, 0].mean():.1f}", f"{found[:, 1].mean():,.0f}"


if __name__ == "__main__":
    for line in {"noise": noise, "variates": variates, "feedback": feedback, "late": late}[sys.argv[1]]():
        print(line, flush=True)
