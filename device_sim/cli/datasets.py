"""``fl-mobile datasets``: what there is to learn from, and how one is dealt out to devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables

if TYPE_CHECKING:
    from device_sim.datasets import Dataset


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Open this one and show how it is dealt out.")
    ] = None,
    changes: SetOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List datasets; with a NAME open it and summarise who holds what under [data].

    Examples:
      fl-mobile datasets
      fl-mobile datasets digits --set data.partition=shards --set data.devices=20 --set train.cohort=5
    """
    if name is None:
        _list_all(output)
    else:
        _show_one(name, changes or [], output)


def _list_all(output: Format) -> None:
    from device_sim.datasets import DATASETS

    rows = [
        {
            "name": name,
            "summary": row.summary,
            "size": row.size,
            "licence": row.licence,
            "here": not (missing := row.missing()),
            "missing": missing,
            "get": row.get,
            "natural_devices": row.natural,
            "accuracy_name": row.accuracy_name,
        }
        for name, row in DATASETS.items()
    ]
    if output is Format.JSON:
        print_json(rows)
        return
    cells = [(r["name"], r["summary"], r["size"], "yes" if r["here"] else r["missing"], r["get"]) for r in rows]
    print_tables([make_table("", ("name", "summary", "size", "here", "how to get it"), cells)])


def _show_one(name: str, changes: list[str], output: Format) -> None:
    from device_sim.client_data.partition import summarize
    from device_sim.experiment.toml import parse_experiment
    from device_sim.federation.dealing import deal_out, dealt_as, open_dataset
    from fl_mobile.tasks import strata_of
    from fl_mobile.tasks.table import CLASSIFICATION

    experiment = parse_experiment("", [f"data.dataset={name}", *changes])
    dataset = open_dataset(experiment)
    strata = strata_of(dataset.train.y)
    groups = dataset.num_classes if dataset.task == CLASSIFICATION else int(strata.max()) + 1
    spread = summarize(strata, deal_out(experiment, dataset), groups).as_dict()
    facts, dealt = _facts(dataset), {"partition": dealt_as(experiment, dataset), **spread}
    if output is Format.JSON:
        print_json({**facts, "dealt_out": dealt})
        return
    told = {**facts, "labels": ", ".join(dataset.labels[:20])}
    sizes = {**dealt, "examples_per_device": " ".join(map(str, dealt["examples_per_device"]))}
    print_tables([make_table("", (name, ""), _rows(told)), make_table("", ("dealt out", ""), _rows(sizes))])


def _rows(facts: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (key.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else value) for key, value in facts.items()
    ]


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "source": dataset.source,
        "train_examples": len(dataset.train),
        "test_examples": len(dataset.test),
        "input": f"{dataset.train.x.dtype}{list(dataset.input_shape)}",
        "task": dataset.task,
        "labels": list(dataset.labels),
        "fingerprint": dataset.fingerprint,
    }
