"""``fl-mobile verify --layers``: what quantisation does to each layer, as the bundle's report says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_sim.cli.output import make_table

if TYPE_CHECKING:
    from rich.table import Table


def read_layers(bundle: Path) -> dict[str, Mapping[str, Any]]:
    """Returns recipe → layer report of every quantised artifact of the bundle, its files compared with the manifest.

    Raises:
        VerifyError: The bundle is damaged, or was made before there were layer reports.
    """
    from export.bundles.folder import read_bundle
    from fl_mobile.errors import VerifyError

    files = read_bundle(bundle).files
    try:
        variants = json.loads(files["report.json"])["variants"]
        return {variant["recipe"]: variant["layers"] for variant in variants if variant["layers"] is not None}
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyError(
            f"{bundle / 'report.json'} says nothing of layers ({error!r}); export the model again"
        ) from error


def layer_tables(layers: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    """Yields one table per artifact; ratios are signal to noise in dB, larger is better."""
    columns = ("layer", "operation", "own dB", "at the answer", "so far", "noise share")
    for recipe, report in layers.items():
        kept = f", in float32: {', '.join(report['kept_float'])}" if report["kept_float"] else ""
        why = f", not measured: {report['not_measured']}" if report["not_measured"] else ""
        rows = [_row(error) for error in report["errors"]]
        yield make_table(f"{recipe}.tflite{kept}{why}", columns, rows, numbers=columns[2:])


def _row(error: Mapping[str, Any]) -> tuple[str, ...]:
    from export.layers.variant import decibel

    ratios = (decibel(error[name]) for name in ("own_snr_db", "answer_snr_db", "total_snr_db"))
    return (error["layer"] or "–", error["op"], *ratios, f"{error['noise_share']:.1%}")
