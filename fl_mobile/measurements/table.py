"""``fl_mobile.measure``: codecs on updates, as a table that a person reads and a program takes on.

>>> import fl_mobile
>>> found = fl_mobile.measure([{"w": np.linspace(-1, 1, 400, dtype=np.float32)}], ["q8", "q4"], repeats=2)
>>> [row.codec for row in found], found["q4"].ratio > found["q8"].ratio
(['q8', 'q4'], True)
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fl_mobile.codecs import CODECS, PRESETS, STAGES, Codec, admit_codec, parse_codec
from fl_mobile.errors import ConfigError, DataError, check_known
from fl_mobile.measurements.kinds import OfKind, by_kind
from fl_mobile.measurements.measurement import Measurement, measure_codec, pareto_plot
from fl_mobile.measurements.sources import SOURCES, finite, read_updates, spec_of, synthetic
from fl_mobile.storage.files import write_atomic
from fl_mobile.tensors import Spec, Tensors, TensorSpec

Updates = str | Path | Sequence[Tensors]


@dataclass(frozen=True)
class Measurements:
    """A row a codec, in the order asked for; prints as a table, also in a notebook.

    Attributes:
        rows: One `Measurement` a codec.
    """

    rows: tuple[Measurement, ...]

    COLUMNS: ClassVar = (
        "codec",
        "bytes",
        "ratio",
        "bits/param",
        "zeros %",
        "NMSE",
        "of mean",
        "unbiased",
        "MB/s enc",
        "dec",
    )
    """Of a row that a person reads: median packet, float32 bytes a packet byte, …; unbiased is what the n-fold mean
    showed, ``(claimed)`` if only the codec says so; speed is of this machine, now."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.rows)

    def __getitem__(self, which: int | str) -> Measurement:
        """Returns the row at a position, or that of a codec's full name."""
        if isinstance(which, int):
            return self.rows[which]
        by_name = {row.codec: row for row in self.rows}
        check_known("measured codec", which, by_name)
        return by_name[which]

    def told(self) -> list[tuple[str, ...]]:
        """Returns the rows as text under ``COLUMNS``, the smallest packets first."""
        return [_told(row) for row in sorted(self.rows, key=lambda row: -row.ratio)]

    def __str__(self) -> str:
        lines = [self.COLUMNS, *self.told()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.COLUMNS))]
        return "\n".join(
            "  ".join(line[i].rjust(width) if i else line[i].ljust(width) for i, width in enumerate(widths))
            for line in lines
        )

    def _repr_html_(self) -> str:
        rows = [f"<th>{'</th><th>'.join(map(escape, self.COLUMNS))}</th>"]
        rows += [f"<td>{'</td><td>'.join(map(escape, line))}</td>" for line in self.told()]
        return f"<table><tr>{'</tr><tr>'.join(rows)}</tr></table>"

    def to_json(self, file: str | Path | None = None) -> str:
        """Returns the rows as JSON text, a list of objects; a number that is not finite is null.

        Args:
            file: Is written too, if given.
        """
        return _kept(json.dumps([row.to_json() for row in self.rows], indent=1) + "\n", file)

    def to_csv(self, file: str | Path | None = None) -> str:
        """Returns the rows as CSV text with a header line; a number that is not finite is empty.

        Args:
            file: Is written too, if given.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, [f.name for f in fields(Measurement)], lineterminator="\n")
        table.writeheader()
        table.writerows(row.to_json() for row in self.rows)
        return _kept(text.getvalue(), file)

    def to_frame(self) -> Any:
        """Returns a ``pandas.DataFrame``, a row a codec.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError(
                "a data frame needs pandas: pip install pandas; .to_csv() and .to_json() do not"
            ) from None
        return pd.DataFrame([row.to_json() for row in self.rows], columns=[f.name for f in fields(Measurement)])

    def plot(self, file: str | Path, title: str = "") -> None:
        """Draws error against bits, with the Gaussian bounds; see `pareto_plot`.

        Raises:
            ConfigError: ``file`` is neither ``.png`` nor ``.svg``, or matplotlib is not installed.
        """
        pareto_plot(self.rows, Path(file), title)


def measure(
    updates: Updates,
    codecs: Sequence[str | Codec] | str = (),
    *,
    spec: Spec | None = None,
    size: int = 2**18,
    seed: int = 0,
    repeats: int = 16,
    progress: Callable[[str], None] | None = None,
) -> Measurements:
    """Returns what codecs make of updates: real packet bytes, error and bias, decoded by the server's path.

    Args:
        updates: ``run.updates``; or any list of updates, each tensor name → array; or a run folder, a folder of
            ``.npz`` files or one of them; or ``"gaussian"``, ``"laplace"``, ``"generalised-gaussian"``.
        codecs: Names such as ``"ecsq"`` or ``"topk:0.01+q8+deflate"``, or codecs; none measures every row of
            `fl-mobile codecs`.
        spec: Of the updates; what it marks as not trainable travels exactly. Without it all of them are trainable,
            unless the run folder says otherwise.
        size: Values in an update of such a named source.
        seed: Of the codecs' rounding.
        repeats: n of the bias test.
        progress: Called with a line before each codec.

    Raises:
        ConfigError: No such codec, or fewer than 2 repeats.
        DataError: No updates, unreadable ones, not all of one model, or values that are not finite.
    """
    chosen = [codecs] if isinstance(codecs, str) else list(codecs) or _every_row()
    for text in chosen:
        if isinstance(text, str):
            admit_codec(text)
    parsed = [parse_codec(codec) if isinstance(codec, str) else codec for codec in chosen]
    found, agreed = _read(updates, spec, size)
    rows = []
    for codec in {codec.name: codec for codec in parsed}.values():
        if progress:
            progress(f"{codec.name}: {len(found)} updates")
        rows.append(measure_codec(codec, found, agreed, seed=seed, repeats=repeats))
    return Measurements(tuple(rows))


def measure_kinds(
    updates: Updates, codecs: Sequence[str | Codec], *, spec: Spec | None = None, size: int = 2**18, seed: int = 0
) -> list[OfKind]:
    """Returns what each codec makes of each kind of tensor: embeddings, recurrent, convolutions, dense, vectors.

    Args:
        updates: As of `measure`.
        codecs: Names, or codecs; at least one.
        spec: As of `measure`.
        size: And there.
        seed: Of the codecs' rounding.

    Raises:
        ConfigError: No such codec.
        DataError: No updates, unreadable ones, not all of one model, or values that are not finite.
    """
    for text in codecs:
        if isinstance(text, str):
            admit_codec(text)
    found, agreed = _read(updates, spec, size)
    parsed = [parse_codec(codec) if isinstance(codec, str) else codec for codec in codecs]
    return [row for codec in parsed for row in by_kind(codec, found, agreed, seed=seed)]


def _every_row() -> list[str | Codec]:
    stages = [row.example for name, row in STAGES.items() if name not in ("deflate", "flat")]
    return [*stages, *(row.example for row in CODECS.values()), *PRESETS.values()]


def _read(updates: Updates, spec: Spec | None, size: int) -> tuple[list[Tensors], Spec]:
    if isinstance(updates, (str, Path)):
        return _stored(updates, spec, size)
    held = list(updates)
    if not held or not all(isinstance(one, dict) and one for one in held):
        got = "none" if not held else type(next(one for one in held if not isinstance(one, dict) or not one)).__name__
        raise DataError(f"updates: expected a list of updates, each tensor name → array (run.updates), got {got}")
    found = [{p: finite(np.asarray(v), f"update {i}, '{p}'") for p, v in one.items()} for i, one in enumerate(held)]
    agreed = spec or spec_of(found[0])
    shapes = {path: tensor.shape for path, tensor in agreed.items()}
    for i, one in enumerate(found):
        if {path: value.shape for path, value in one.items()} != shapes:
            raise DataError(f"update {i}: is of another model than update 0; measure updates of one model at a time")
    return found, agreed


def _stored(updates: str | Path, spec: Spec | None, size: int) -> tuple[list[Tensors], Spec]:
    if str(updates) in SOURCES:
        made = synthetic(str(updates), size, count=2, seed=0)
        return made, spec or spec_of(made[0])
    path = Path(updates)
    folder = path / "updates" if (path / "updates").is_dir() else path
    if not folder.exists():
        raise DataError(
            f"{updates}: no run folder, folder of .npz updates, .npz file, or source ({', '.join(SOURCES)})."
        )
    if spec is None and (folder / "spec.json").is_file():
        told = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        spec = {t["path"]: TensorSpec(tuple(t["shape"]), t["trainable"]) for t in told}
    found = read_updates(folder, spec)
    return found, spec or spec_of(found[0])


def _told(found: Measurement) -> tuple[str, ...]:
    unbiased = "yes" if found.unbiased else "(claimed)" if found.claims_unbiased else "no"
    return (
        found.codec,
        f"{found.packet_bytes_median:,.0f}",
        f"{found.ratio:.1f}×",
        f"{found.bits_per_parameter:.3f}",
        f"{100 * found.sparsity:.1f}",
        f"{found.nmse:.4g}",
        f"{found.nmse_of_mean:.4g}",
        unbiased,
        f"{found.encode_mb_s:.0f}",
        f"{found.decode_mb_s:.0f}",
    )


def _kept(text: str, file: str | Path | None) -> str:
    if file is not None:
        write_atomic(Path(file), text.encode())
    return text
