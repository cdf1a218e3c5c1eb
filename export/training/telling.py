"""What an exception of Keras or TensorFlow comes down to, in one line."""

from __future__ import annotations

import re

_NOISE = re.compile(r"\x1b\[[0-9;]*m")
_OPENING = "Exception encountered when calling"


def telling(error: BaseException, limit: int = 300) -> str:
    """Returns the layer and the reason out of the many lines that Keras puts around an exception.

    >>> telling(ValueError("Exception encountered when calling Odd.call().\\n\\nbad rank"))
    'Odd.call(): bad rank'
    """
    lines = [line.strip() for line in _NOISE.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith(_OPENING) and len(lines) > 1:
        return f"{lines[0].removeprefix(_OPENING).strip().rstrip('.')}: {lines[1]}"[:limit]
    return lines[0][:limit]
