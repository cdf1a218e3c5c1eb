"""Keywords of Python as keys of the experiment: ``rounds=20`` is ``train.rounds``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from device_sim.experiment.toml import all_keys, as_toml, load_rows
from fl_mobile.errors import ConfigError
from fl_mobile.table import is_own

SHORT = {
    "upload": "upload.codec",
    "download": "download.mode",
    "engine": "engine.name",
    "devices": "data.devices",
    "task": "task.name",
}
"""Keywords that are no last word of a key, or of several."""


def changes_of(keywords: Mapping[str, Any]) -> list[str]:
    """Returns keywords as the command line's ``--set`` takes them.

    >>> changes_of({"rounds": 20, "upload": "ecsq", "output_recipes": ["int8"]})
    ['train.rounds=20', 'upload.codec="ecsq"', 'output.recipes=["int8"]']

    Raises:
        ConfigError: No key, or several, end so.
    """
    changes: dict[str, str] = {}
    # A row of one's own has keys too: what may name one comes first.
    for name, value in sorted(keywords.items(), key=lambda item: (not is_own(item[1]), not isinstance(item[1], str))):
        changes[name] = f"{key_of(name)}={as_toml(_plain(value))}"
        load_rows([changes[name]])
    return [changes[name] for name in keywords]


def key_of(name: str) -> str:
    """Returns the experiment's key that a keyword means.

    >>> key_of("epochs"), key_of("server_learning_rate"), key_of("upload")
    ('train.epochs', 'server.learning-rate', 'upload.codec')

    Raises:
        ConfigError: No key, or several, end so.
    """
    if name in SHORT:
        return SHORT[name]
    wanted, known = name.replace("_", "-"), all_keys()
    whole = [key for key in known if key.replace(".", "-") == wanted]
    found = whole or [key for key in known if key.rpartition(".")[2] == wanted]
    if len(found) == 1 or f"train.{wanted}" in found:
        return found[0] if len(found) == 1 else f"train.{wanted}"
    if found:
        told = " or ".join(key.replace(".", "_").replace("-", "_") for key in found)
        raise ConfigError(f"keyword '{name}' can mean {', '.join(found)}; write {told}")
    names = [key.replace(".", "_").replace("-", "_") for key in known]
    close = get_close_matches(name, [*names, *SHORT, *(key.rpartition(".")[2].replace("-", "_") for key in known)], n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"unknown keyword '{name}'.{hint} `fl-mobile new DIR` writes every key with its meaning.")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
