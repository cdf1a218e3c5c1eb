"""Everything fl-mobile raises on purpose, as one tree with the exit code each kind ends a command with.

```
FlMobileError        1   anything below; catch this one at the edge
├── ConfigError      3   experiment file, --set, names that no table holds
├── DataError        4   a dataset that is missing, malformed or too small
├── ModelError       5   a model that cannot be built, read or federated
│   └── TrainingError  5   TensorFlow failed in the middle of a step
├── DivergedError    6   local training produced NaN or Inf
├── RunError         7   run folder or checkpoint: exists already, corrupt, from another experiment
├── ExportError      8   a model or recipe that cannot become a device artifact
├── VerifyError      9   an artifact, bundle or run that is not what it claims to be
├── WireError       10   bytes that are not a valid packet; the only thing `unpack` and `decode` raise
└── SpecMismatch    11   tensors that do not fit the agreed spec
```
Exit code 0 is success, 2 a usage error, 12 an operating-system error such as a full disk, 130 Ctrl-C.
Messages say what was expected, what came, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class FlMobileError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class ConfigError(FlMobileError):
    """An experiment, option or table name that cannot be used."""

    exit_code = 3


class DataError(FlMobileError):
    """A dataset that is missing, malformed or too small for what was asked."""

    exit_code = 4


class ModelError(FlMobileError):
    """A model that cannot be built, read or federated."""

    exit_code = 5


class TrainingError(ModelError):
    """TensorFlow failed in the middle of a step; ``details`` is all it said, for a file, not for a terminal."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class DivergedError(FlMobileError):
    """Local training produced values that are not finite."""

    exit_code = 6


class RunError(FlMobileError):
    """A run folder or checkpoint that cannot be written or continued."""

    exit_code = 7


class ExportError(FlMobileError):
    """A model or recipe that cannot become a device artifact."""

    exit_code = 8


class VerifyError(FlMobileError):
    """An artifact, bundle or run that is not what it claims to be."""

    exit_code = 9


class WireError(FlMobileError):
    """Bytes that are not a valid packet for the expected spec and codec.

    ``reason`` is a short stable word (``"magic"``, ``"checksum"``, ``"truncated"`` …) that servers count by.
    """

    exit_code = 10

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason, self._message = reason, message

    def __reduce__(self) -> tuple[type[WireError], tuple[str, str]]:
        return type(self), (self.reason, self._message)  # so that it crosses from a worker process whole


class SpecMismatch(FlMobileError):
    """Tensors whose names, order, shapes or dtypes do not fit the agreed spec."""

    exit_code = 11


def check_known(what: str, name: str, known: Collection[object]) -> None:
    """Raises `ConfigError` that names ``what`` unless ``name`` is one of ``known``."""
    if name not in known:
        raise ConfigError(f"unknown {what} '{name}'.{nearest(name, known)}")


def nearest(name: str, known: Iterable[object]) -> str:
    """Returns ``" Did you mean 'x'?"`` plus the known names, for messages about an unknown name.

    >>> nearest("fedavgg", ["fedavg", "fedprox"])
    " Did you mean 'fedavg'? Known: fedavg, fedprox."
    """
    import difflib

    names = [str(k) for k in known]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(sorted(names))}."
