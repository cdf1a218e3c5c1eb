"""What an operator sees: a page that needs no script, and numbers for Prometheus. Neither names a device."""

from __future__ import annotations

import html as escape
from collections.abc import Mapping
from typing import Any

from fl_mobile.coordinator.front import Front

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem;border-bottom:1px solid #d8dee4;
text-align:right}th:first-child,td:first-child{text-align:left}h1{font-size:1.4rem}h2{font-size:1.1rem}"""


def html(coordinator: Front) -> str:
    """Returns the page ``/``: the open round, the finished ones, refusals by reason."""
    round_ = coordinator.open
    population, counts = coordinator.seen(round_.number if round_ else None)
    now: dict[str, Any] = {"devices enrolled": population}
    if round_ is not None and round_.discreet:
        now |= {"round": round_.number, "clients": "not told under differential privacy"}
    elif round_ is not None:
        now |= {"round": round_.number, "clients asked": f"{counts.asked} of {round_.ask}"}
        now |= {"packets that count": f"{counts.packets - counts.refused.total()} of {round_.most}"}
    else:
        now["round"] = "the run is finished" if coordinator.finished else "between rounds"
    history = [dict(line) for line in coordinator.history[-50:]][::-1]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>",
        f"<title>fl-mobile coordinator</title><style>{_STYLE}</style><h1>Run {coordinator.run}</h1>",
        _table(["now", ""], [[name, value] for name, value in now.items()]),
        "<h2>Rounds</h2>",
        _table(list(history[0]), [list(line.values()) for line in history]) if history else "<p>None yet.</p>",
        "<h2>Refused since the start</h2>",
        _table(["reason", "requests"], [[reason, n] for reason, n in coordinator.refused.most_common()]),
    ]
    return "".join(parts)


def metrics(coordinator: Front) -> str:
    """Returns Prometheus' text format; labels are reasons, never devices."""
    round_ = coordinator.open
    population, counts = coordinator.seen(round_.number if round_ else None)
    numbers: dict[str, tuple[str, float]] = {
        "fl_mobile_devices_enrolled": ("gauge", population),
        "fl_mobile_round": ("gauge", round_.number if round_ else -1),
        "fl_mobile_finished": ("gauge", int(coordinator.finished)),
    }
    if not (round_ and round_.discreet):
        numbers |= {
            "fl_mobile_round_clients_asked": ("gauge", counts.asked),
            "fl_mobile_round_packets_received": ("gauge", counts.packets),
            "fl_mobile_round_upload_bytes": ("gauge", counts.upload_bytes),
        }
    lines = [f"# TYPE {name} {kind}\n{name} {value:g}" for name, (kind, value) in numbers.items()]
    if coordinator.history:
        lines += _of_round(coordinator.history[-1])
    lines.append("# TYPE fl_mobile_refused_total counter")
    lines += [f'fl_mobile_refused_total{{reason="{reason}"}} {n}' for reason, n in sorted(coordinator.refused.items())]
    return "\n".join(lines) + "\n"


def _of_round(line: Mapping[str, Any]) -> list[str]:
    told = {"accuracy": line.get("accuracy"), "loss": line.get("loss"), "accepted": line.get("accepted")}
    return [f"# TYPE fl_mobile_last_{k} gauge\nfl_mobile_last_{k} {v:g}" for k, v in told.items() if v is not None]


def _table(head: list[str], rows: list[list[Any]]) -> str:
    top = "".join(f"<th>{escape.escape(str(name))}" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape.escape(_told(cell))}" for cell in row) for row in rows)
    return f"<table><tr>{top}{body}</table>"


def _told(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
