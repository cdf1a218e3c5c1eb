"""The reference pages of the documentation site, made from the code as it is: verbs, keys, tables, names, wire format.

Nothing here loads TensorFlow: every table and every record is there without it.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

import typer
from as_markdown import code, docstring, plain, table

TABLES = {
    "Codec stages": ("fl_mobile.codecs:STAGES", "`upload.codec`, `download.codec`, joined by `+`"),
    "Whole codecs": ("fl_mobile.codecs:CODECS", "`upload.codec`, `download.codec`"),
    "Codec presets": ("fl_mobile.codecs:PRESETS", "`upload.codec`, `download.codec`"),
    "Algorithms": ("fl_mobile.algorithms:ALGORITHMS", "`server.algorithm`"),
    "Aggregation rules": ("fl_mobile.aggregation:AGGREGATORS", "`server.aggregation`"),
    "Server schedules": ("fl_mobile.server.schedule:SCHEDULES", "`server.schedule`"),
    "Averages of server models": ("fl_mobile.server.averaging:AVERAGINGS", "`server.averaging`"),
    "Local optimizers": ("fl_mobile.local:OPTIMIZERS", "`train.optimizer`"),
    "Losses": ("fl_mobile.local:LOSSES", "`train.loss`"),
    "Tasks": ("fl_mobile.tasks:TASKS", "`task.name`"),
    "Metrics": ("fl_mobile.tasks:METRICS", "`output.metrics`"),
    "Models": ("fl_mobile.models:MODELS", "`model.name`"),
    "Datasets": ("device_sim.datasets:DATASETS", "`data.dataset`"),
    "Partitions": ("device_sim.client_data.partition:PARTITIONERS", "`data.partition`"),
    "Classes of phones": ("device_sim.fleet.devices.profiles:PROFILES", "`fleet.profile`"),
    "Links": ("device_sim.fleet.devices.links:LINKS", "`fleet.link`"),
    "Availability": ("device_sim.fleet.availability.presence:PRESENCES", "`fleet.availability`"),
    "Samplers": ("device_sim.fleet.selection.samplers:SAMPLERS", "`selection.sampler`"),
    "Strata": ("device_sim.fleet.selection.strata:STRATA", "`selection.strata`"),
    "Update policies": ("device_sim.fleet.selection.policies:POLICIES", "`policy.name`"),
    "Attacks": ("device_sim.attacks:ATTACKS", "`attack.name`"),
    "Engines": ("device_sim.engines:ENGINES", "`engine.name`"),
    "Server modes": ("device_sim.rounds:SERVERS", "`clock.mode`"),
    "Export recipes": ("export.convert.recipes:RECIPES", "`--recipe`, `output.recipes`"),
    "Tuned export recipes": (
        "export.convert.recipes:TUNED_RECIPES",
        "`--recipe`, `output.recipes`, with `--tuning-data`",
    ),
    "Runtimes that prove an artifact": ("export.runtimes:RUNTIMES", "`--runtime`"),
}
PACKAGES = (
    *("device_sim", "export", "fl_mobile"),
    *("fl_mobile.records", "fl_mobile.tensors", "fl_mobile.errors", "fl_mobile.seeds"),
    *("fl_mobile.client.answer", "fl_mobile.client.receive", "fl_mobile.server.publish", "fl_mobile.server.admission"),
    *("fl_mobile.server.fold", "fl_mobile.server.step", "fl_mobile.wire", "fl_mobile.codecs", "fl_mobile.aggregation"),
    *("fl_mobile.algorithms", "fl_mobile.privacy", "fl_mobile.secure_sum", "fl_mobile.local", "fl_mobile.tasks"),
    *("fl_mobile.models", "fl_mobile.table"),
    *("device_sim.datasets", "device_sim.client_data.partition", "device_sim.engines", "device_sim.attacks"),
    *("device_sim.report", "export.training", "export.tuning", "export.benchmark", "export.layers"),
)
WIRE = (
    *("fl_mobile.wire.packet", "fl_mobile.wire.lattice", "fl_mobile.wire.download", "fl_mobile.wire.pruning_mask"),
    *("fl_mobile.codecs.ecsq", "fl_mobile.secure_sum"),
)


def pages() -> dict[str, str]:
    """Returns file name → Markdown of every generated page."""
    return {
        "reference/verbs.md": verbs(),
        "reference/keys.md": keys(),
        "reference/tables.md": tables(),
        "reference/names.md": names(),
        "reference/wire.md": wire(),
    }


def verbs() -> str:
    """Returns every verb of the command line with its options, from the functions that are the verbs."""
    from device_sim.cli import VERBS
    from device_sim.cli.edge import exit_codes

    out = ["# Verbs\n", "`fl-mobile VERB --help` prints the same.\n"]
    for verb in VERBS:
        head, _, rest = inspect.cleandoc(verb.__doc__ or "").replace("\b\n", "").partition("\n\n")
        out += [f"## {verb.__name__}\n", plain(" ".join(head.split())) + "\n"]
        if rest.strip():
            out.append(code(rest))
        out.append(table(("argument or option", "default", "what it does"), _verb_rows(verb)))
    out += ["## Exit codes\n", table(("code", "meaning"), [(c, plain(m)) for c, m in exit_codes()])]
    return "\n".join(out)


def _verb_rows(verb: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """Yields a row for each parameter: what is typed, its default, its help."""
    hints = get_type_hints(verb, include_extras=True)
    for name, parameter in inspect.signature(verb).parameters.items():
        kind, info = get_args(hints[name])[:2]
        option = isinstance(info, typer.models.OptionInfo)
        word = info.metavar or _word(kind)
        given = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("-")]
        typed = ", ".join(given or [f"--{_kebab(name)}"]) if option else info.metavar or name.upper()
        default = getattr(parameter.default, "value", parameter.default)
        shown = "" if default in (None, False, "", inspect.Parameter.empty) else f"`{default}`"
        yield f"`{f'{typed} {word}'.strip() if option else typed}`", shown, plain(info.help or "")


def _word(kind: Any) -> str:
    """Returns what stands for a value of a type: nothing for a flag, the choices of an enumeration."""
    kinds = [k for k in get_args(kind) if k is not type(None)] or [kind]
    first = kinds[0]
    if first is bool:
        return ""
    if isinstance(first, type) and issubclass(first, enum.Enum):
        return "|".join(str(member.value) for member in first)
    return getattr(first, "__name__", str(first)).upper()


def keys() -> str:
    """Returns every key of an experiment with its default and its help, from the records that declare them."""
    from device_sim.experiment.experiment import Experiment

    out = [
        "# Keys of an experiment\n",
        "`fl-mobile new DIR` writes them into a file; `--set section.key=value` changes one.\n",
    ]
    out += ["In Python each is a keyword: `-` and `.` become `_`.\n"]
    experiment = Experiment()
    top = []
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if dataclasses.is_dataclass(value):
            section = _kebab(field.name)
            about = (type(value).__doc__ or "").removeprefix(f"[{section}]: ")
            out += [f"## {section}\n", docstring(about)]
            out.append(table(("key", "default", "what it means"), _key_rows(value, section)))
        else:
            top.append((f"`{_kebab(field.name)}`", _toml(value), plain(field.metadata.get("doc", ""))))
    if top:
        out.insert(2, table(("key", "default", "what it means"), top))
    return "\n".join(out)


def _key_rows(record: Any, path: str, when: str = "") -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(record):
        value, doc = getattr(record, field.name), field.metadata.get("doc", "")
        name = f"{path}.{_kebab(field.name)}"
        if "rows" in field.metadata:
            yield from _parameter_rows(field.metadata["rows"], path, field.metadata["by"])
        elif dataclasses.is_dataclass(value):
            yield from _key_rows(value, name, when)
        else:
            yield f"`{name}`", _toml(value), plain(doc) + when


def _parameter_rows(rows: Mapping[str, Any], path: str, by: str) -> Iterator[tuple[str, str, str]]:
    """Yields the parameters that rows of a table bring, once each record, with the rows that read them."""
    readers: dict[type, list[str]] = {}
    for name, row in rows.items():
        readers.setdefault(row.parameters, []).append(name)
    for record, names in readers.items():
        if dataclasses.fields(record):
            yield from _key_rows(record(), path, f" (with `{by}` = {', '.join(f'`{n}`' for n in names)})")


def tables() -> str:
    """Returns every row of every table a user can name, with what the row says of itself."""
    out = ["# Rows of the tables\n", "Where a key takes a name, these are the names.\n"]
    for title, (where, used) in TABLES.items():
        module, _, attribute = where.partition(":")
        rows: Mapping[str, Any] = getattr(importlib.import_module(module), attribute)
        out += [f"## {title}\n", f"For {used}. `{attribute}` in `{module}`.\n"]
        out.append(table(("name", "what it is"), [(f"`{name}`", plain(_about(row))) for name, row in rows.items()]))
    return "\n".join(out)


def _about(row: Any) -> str:
    """Returns what a row says of itself: its summary, else the first line of what it makes, else its numbers."""
    if isinstance(row, str):
        return row
    for attribute in ("summary", "what", "suits"):
        if text := getattr(row, attribute, ""):
            more = [getattr(row, name, "") for name in ("size", "reference", "paper", "licence")]
            return "; ".join([str(text), *(m for m in more if isinstance(m, str) and m)])
    for candidate in (
        row,
        *(getattr(row, n, None) for n in ("make", "choose", "open", "configure", "step", "per_example")),
    ):
        if callable(candidate) and (doc := inspect.getdoc(candidate)):
            return doc.split("\n\n", 1)[0].replace("``", "`")
    if not dataclasses.is_dataclass(row):
        return ""
    values = {f.name.replace("_", " "): getattr(row, f.name) for f in dataclasses.fields(row)}
    traits = [name for name, value in values.items() if value is True]
    return ", ".join([*traits, *(f"{n} {v:g}" for n, v in values.items() if type(v) in (int, float))])


def names() -> str:
    """Returns the public names of the packages with their docstrings."""
    out = ["# Public names\n", "What a program may import; everything else may change without notice.\n"]
    for package in PACKAGES:
        module = importlib.import_module(package)
        out += [f"## {package}\n", docstring(module.__doc__)]
        for name in getattr(module, "__all__", None) or _own(module):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                out += [
                    f"### {package}.{name}\n",
                    code(_signature(name, value), "python"),
                    docstring(inspect.getdoc(value)),
                    _methods(value),
                ]
    return "\n".join(out)


def _own(module: Any) -> list[str]:
    """Returns the names without underscore that a module defines itself."""
    return [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]


def _signature(name: str, value: Any, width: int = 100) -> str:
    """Returns how something is called, with one parameter a line where it would be wide."""
    kind = "class " if inspect.isclass(value) else ""
    try:
        text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value))).removesuffix(" -> None")
    except (TypeError, ValueError):
        return kind + name
    inside, _, after = text[1:].rpartition(")")
    if len(name) + len(text) <= width or not inside:
        return f"{kind}{name}{text}"
    lines = "".join(f"    {parameter},\n" for parameter in _split(inside))
    return f"{kind}{name}(\n{lines}){after}"


def _split(parameters: str) -> list[str]:
    """Returns the parameters one by one: commas within brackets or quotes part nothing."""
    out, depth, quoted = [""], 0, False
    for letter in parameters:
        quoted ^= letter == "'"
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quoted:
            out.append("")
        else:
            out[-1] += letter
    return [part.strip() for part in out]


def _methods(value: Any) -> str:
    """Returns what can be asked of a class's objects, a line each."""
    if not inspect.isclass(value):
        return ""
    lines = []
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not (doc := inspect.getdoc(function)):
            continue
        called = (
            name
            if isinstance(member, property)
            else f"{name}(…)"
            if len(inspect.signature(function).parameters) > 1
            else f"{name}()"
        )
        lines.append(f"- `{called}`: {plain(' '.join(doc.split(chr(10) * 2, 1)[0].replace('``', '`').split()))}\n")
    return "**Methods and properties**\n\n" + "".join(lines) if lines else ""


def wire() -> str:
    """Returns the byte layouts for authors of clients, from the docstrings beside the code."""
    out = [
        "# The wire format\n",
        "For authors of clients. What the docstring of a module says is what its tests hold.\n",
    ]
    for name in WIRE:
        out += [f"## {name}\n", docstring(importlib.import_module(name).__doc__)]
    return "\n".join(out)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _toml(value: Any) -> str:
    from device_sim.experiment.toml import as_toml

    return f"`{as_toml(list(value) if isinstance(value, tuple) else value)}`"
