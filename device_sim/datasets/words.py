"""Text in words of a public list: what a keyboard tells next; whatever is not in the list is token 0.

A word is a run of letters, digits and apostrophes, without case; any other sign that is no space is one of its own. The
keyboard page (`export/pages/files/keyboard/text.js`) parts what is typed in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_sim.datasets.records import Dataset, Samples, make_dataset
from fl_mobile.errors import DataError

WINDOW = 20
"""Words of an example."""

OTHER = "<other>"
MOST_WORDS = 100_000
_WORD = re.compile(r"(?:[^\W_]|')+|[^\w\s]|_")


def words_of(text: str) -> list[str]:
    """Returns the words of a text, in order.

    >>> words_of("Don't panic, Arthur_2!")
    ["don't", 'panic', ',', 'arthur', '_', '2', '!']
    """
    return _WORD.findall(text.lower())


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Returns the words of a list, one a line, the most frequent first; those that differ in case alone are one.

    Raises:
        DataError: It cannot be read, a line is no single word, or there are fewer than two or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.vocabulary: {path} cannot be read as UTF-8 text: {error}.") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word = line.strip()
        if words_of(word) != [word.lower()] or not word.isprintable():
            raise DataError(
                f"{path}, line {number}: expected one word, of letters, digits and apostrophes, or one other sign; got"
                f" {word[:40]!r}."
            )
        found[word.lower()] = None
    if not 2 <= len(found) <= MOST_WORDS:
        raise DataError(f"{path}: expected from 2 to {MOST_WORDS} words, one a line, got {len(found)}.")
    return tuple(found)


def numbers_of(text: str, numbers: Mapping[str, int]) -> np.ndarray:
    """Returns ``int32[n]``: the number of every word, 0 of those that have none."""
    return np.array([numbers.get(word, 0) for word in words_of(text)], np.int32)


def with_words(dataset: Dataset, kept: Sequence[int], *, statistics_bytes: int = 0) -> Dataset:
    """Returns a dataset of words in the vocabulary that is left: nothing else is to be told, nor counted in a metric.

    Args:
        dataset: Whose targets are 0 where a word is in no list.
        kept: Numbers of the words that stay, in their new order.
        statistics_bytes: That devices sent to have them chosen.
    """
    new = np.zeros(len(dataset.labels), np.int32)
    new[list(kept)] = np.arange(1, len(kept) + 1)
    held = new[np.maximum(dataset.test.y, 0)][dataset.test.y >= 0]
    share = float((held == 0).mean()) if len(held) else 0.0
    parts = [_numbered(part, new) for part in (dataset.train, dataset.test, *filter(None, [dataset.public]))]
    made = make_dataset(
        dataset.name,
        parts[0],
        parts[1],
        (OTHER, *(dataset.labels[number] for number in kept)),
        source=dataset.source,
        device_of=dataset.device_of,
        task=dataset.task,
        why=f"{dataset.why}; {share:.1%} of held-out words are none of the {len(kept)} of the vocabulary",
    )
    return replace(made, public=parts[2] if dataset.public else None, statistics_bytes=statistics_bytes)


def _numbered(part: Samples, new: np.ndarray) -> Samples:
    told = new[np.maximum(part.y, 0)]
    return Samples(new[part.x], np.where((part.y >= 0) & (told > 0), told, -1).astype(np.int64))
