"""The closing table of a run and the table of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from device_sim.cli.output import make_table, size
from fl_mobile.tasks import told
from fl_mobile.tasks.table import CLASSIFICATION

if TYPE_CHECKING:
    from rich.table import Table


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Returns accuracy, traffic and artifacts of a run as one table."""
    export = summary["export"]
    artifacts = artifact_rows(export) if export else [("artifacts", "none exported", "")]
    warned = [("warning", "", line) for line in summary["warnings"]]
    rows = [
        *_training(summary),
        *_privacy(summary.get("privacy")),
        *warned,
        *_on_devices(summary.get("federated_evaluation"), task_of(summary)),
        *artifacts,
    ]
    return make_table("", ("result", "value", "details"), rows)


def artifact_rows(export: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns one row per TFLite file: size, and parity with Keras on the held-out examples kept for the proof."""
    rows = [
        (
            artifact["file"],
            f"{artifact['bytes']:,} bytes",
            f"{_accuracy(artifact)}max Δp {artifact['max_abs_diff']:.2g}{_found(artifact)}",
        )
        for artifact in export["artifacts"]
    ]
    rows += [
        (each["recipe"], each["outcome"], f"{each['reason']} {each['advice']}") for each in export.get("unmade", ())
    ]
    apart = f", {export['calibration_examples']} others calibrated" if export["calibration_examples"] else ""
    told = f"on {export['proof_examples']} held-out examples{apart}; golden frames on {_list(export['replayed_on'])}"
    return [*rows, ("parity", "verified", told)]


def search_table(search: Mapping[str, Any]) -> Table:
    """Returns what recipe ``auto`` tried: bytes against how often and how far each candidate is from Keras."""
    rows = [
        (
            f"{row['name']}{' (written)' if row['name'] == search['chosen'] else ''}",
            f"{row['bytes']:,}",
            "–" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
            "–" if row["agreement"] is None else f"{row['agreement']:.2%}",
            f"{row['mean_abs_diff']:.2g}",
            "yes" if row["on_front"] else "",
            "; ".join(row["failures"]) or "passed",
        )
        for row in sorted(search["candidates"], key=lambda row: row["bytes"])
    ]
    rows += [
        (each["recipe"], "–", "–", "–", "–", "", f"{each['outcome']}: {each['reason']}") for each in search["left_out"]
    ]
    columns = ("tried", "bytes", "accuracy", "same class", "mean Δp", "front", "outcome")
    return make_table("auto: every candidate", columns, rows, numbers=columns[1:5])


def _found(artifact: Mapping[str, Any]) -> str:
    return f"; it is {artifact['made_as']}" if artifact.get("made_as") else ""


def _accuracy(artifact: Mapping[str, Any]) -> str:
    """Returns what is said of an artifact's classes, empty where the model has none."""
    if artifact["accuracy"] is None:
        score = next(iter(artifact.get("metrics", {}).items()), None)
        return f"{score[0]} {score[1][1]:.4f} (Keras {score[1][0]:.4f}), " if score else ""
    return (
        f"{artifact['accuracy']:.2%} ({100 * artifact['accuracy_diff']:+.2f} pt to Keras),"
        f" same class {artifact['argmax_agreement']:.2%}, "
    )


def _training(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    from device_sim.run.summary import kept_told

    traffic, devices, task = summary["traffic"], summary["devices"], task_of(summary)
    dropped = _list([f"{count} {reason}" for reason, count in devices["dropped"].items()]) or "none"
    up, down = traffic["upload_bytes_per_device"], traffic["download_bytes_per_device"]
    best = f"best {told(task, summary['best_accuracy'])} in round {summary['best_round'] + 1}"
    best = best if devices["accepted"] else "nothing was trained"
    each = [traffic[f"{way}_bytes_per_participation"] or 0 for way in ("upload", "download")]
    return [
        (
            summary["accuracy_name"],
            told(task, summary["accuracy"]),
            f"{summary['stop_reason']}; {best}",
        ),
        *_metrics(summary.get("metrics", {})),
        (
            "model.keras",
            f"round {summary['kept']['round'] + 1}",
            kept_told(summary) if devices["accepted"] else "what the run began with",
        ),
        (
            "upload ratio",
            _ratio(traffic["upload_ratio"]),
            f"float32 bytes / packet bytes; download {_ratio(traffic['download_ratio'])}",
        ),
        *_by_kind(summary.get("by_kind", ())),
        (
            "traffic per device",
            size(up + down),
            f"{size(up)} up, {size(down)} down; one participation {size(each[0])} up, {size(each[1])} down",
        ),
        (
            "devices",
            f"{devices['population']:,}",
            f"asked {devices['asked']:,} times, {devices['accepted']:,} updates averaged, dropped: {dropped}",
        ),
        ("time", f"{summary['wall_seconds']:.1f} s here", f"{traffic['air_seconds']:.0f} s on air, simulated"),
    ]


def _metrics(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Returns what else is known of the model on the test set, beside its score."""
    others = list(metrics.items())[1:]
    return [("metrics", "", ", ".join(f"{name} {value:.4g}" for name, value in others))] if others else []


def _by_kind(kinds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Returns what each kind of tensor cost of an upload, where there are several."""
    told = (f"{row['kind']} {row['packet_bytes']:,.0f} bytes ({_ratio(row['ratio'])})" for row in kinds)
    return [("upload by kind", "", ", ".join(told))] if len(kinds) > 1 else []


def task_of(summary: Mapping[str, Any]) -> str:
    """Returns the task of a run; runs of earlier versions classify."""
    return str(summary.get("task", {}).get("name", CLASSIFICATION))


def _privacy(privacy: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    from device_sim.run.privacy import privacy_told

    return [("privacy", f"ε = {privacy['epsilon']:.4g}", privacy_told(privacy))] if privacy else []


def _on_devices(found: Mapping[str, Any] | None, task: str) -> list[tuple[str, str, str]]:
    """Returns accuracy on single devices' own examples: the median and the tails, before and after personalisation."""
    if not found:
        return []
    who = f"{found['devices']} devices, {found['examples_per_device']:.0f} examples of its own each"
    middle = told(task, found["accuracy"]["p50"])
    rows = [("on devices", middle, f"median of {who}; {_tails(found['accuracy'], task)}")]
    if after := found["personalised"]:
        details = f"after {found['personalisation']}; {_tails(after['accuracy'], task)}"
        rows.append(("personalised", told(task, after["accuracy"]["p50"]), details))
    return rows


def _tails(accuracy: Mapping[str, float], task: str) -> str:
    names = {"mean": "mean", "p10": "p10", "p90": "p90", "worst_5_percent": "worst 5 %"}
    form = ".1%" if told(task, 0.0).endswith("%") else ".3f"
    return ", ".join(f"{name} {accuracy[key]:{form}}" for key, name in names.items())


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}×"


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
