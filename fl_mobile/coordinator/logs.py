"""What happens, for machines: one JSON object a line. No line names a device: its place in a path is left out."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

from fl_mobile.errors import ConfigError

LOGGER = "fl_mobile.coordinator"
_DEVICE = re.compile(r"(/devices/)[^/ ]+")


class JsonLines(logging.Formatter):
    """``time`` (UTC), ``level``, ``event``, what came as ``extra={"told": …}``, and ``error`` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def nameless(path: str) -> str:
    """Returns a path without the device that it names.

    >>> nameless("/v1/rounds/3/devices/17/attempts/0")
    '/v1/rounds/3/devices/*/attempts/0'
    """
    return _DEVICE.sub(r"\1*", path)


def log_to(file: Path) -> logging.Handler:
    """Appends to a file from now on, or with ``-`` to stderr; returns the handler, for who wants to end it.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        handler = logging.StreamHandler(sys.stderr) if str(file) == "-" else logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--log {file}: cannot be written: {error.strerror}") from None
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler
