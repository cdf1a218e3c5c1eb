"""Text in words: how it is parted, which lists are taken, and the vocabulary that devices' sums choose."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets import Dataset
from device_sim.datasets.words import OTHER, WINDOW, read_vocabulary, words_of
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import data_of, open_dataset
from device_sim.run.for_phone import phone_task, tells_what_follows
from fl_mobile.client.sums import counts_of, counts_question
from fl_mobile.errors import ConfigError, DataError
from fl_mobile.wire.sums import pack_sums

LIST = ("the", "sea", "wind", "ship", "home", ".", "unused", "sailor's")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Writes texts of four people, of words that are on the list and two that are not."""
    rng = np.random.default_rng(1)
    spoken = np.array(["The", "sea", "wind", "ship", "home", "xylophone", "Quux", "sailor's"])
    for person in range(4):
        (tmp_path / "texts" / f"p{person}").mkdir(parents=True)
        words = rng.choice(spoken, 300 + 10 * person, p=[0.3, 0.2, 0.15, 0.1, 0.05, 0.1, 0.05, 0.05])
        (tmp_path / "texts" / f"p{person}" / "said.txt").write_text(f"the. {' '.join(words)}.", encoding="utf-8")
    (tmp_path / "words.txt").write_text("\n".join(LIST) + "\n", encoding="utf-8")
    return tmp_path


def asked(texts: Path, *changes: str) -> Experiment:
    words = ("data.tokens=words", f"data.vocabulary={texts / 'words.txt'}", "train.cohort=2")
    return parse_experiment("", ["data.dataset=text-folder", f"data.path={texts / 'texts'}", *words, *changes])


def spoken(dataset: Dataset) -> Counter[str]:
    return Counter(dataset.labels[number] for number in dataset.train.y[dataset.train.y >= 0].tolist())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't  panic!", ["don't", "panic", "!"]),
        ("naïve\ncafé №7_b", ["naïve", "café", "№", "7", "_", "b"]),
        ("3.5km 'tis", ["3", ".", "5km", "'tis"]),
        ("  \n", []),
    ],
)
def test_words_are_parted_as_the_keyboard_page_parts_them(text: str, words: list[str]):
    assert words_of(text) == words


def test_a_whole_list_is_the_vocabulary_and_nobody_is_asked(texts: Path):
    found = open_dataset(asked(texts))
    assert found.labels == (OTHER, *LIST)
    assert found.train.x.shape[1] == WINDOW
    assert found.statistics_bytes == 0
    assert "xylophone" not in found.labels
    assert set(np.unique(found.train.y)) <= {-1, *range(1, len(LIST) + 1)}, "a word that is none is not to be told"
    share = float(found.why.rpartition("; ")[2].split("%")[0])
    assert 10 < share < 20, "two words of a seventh are on no list"
    assert tells_what_follows(found)
    assert phone_task(found).vocabulary == (OTHER, *LIST)


def test_the_vocabulary_is_that_of_the_pooled_counts(texts: Path):
    whole, found = open_dataset(asked(texts)), open_dataset(asked(texts, "data.words=3"))
    assert found.labels == (OTHER, *(word for word, _ in spoken(whole).most_common(3)))
    assert all(spoken(found)[word] == spoken(whole)[word] for word in found.labels[1:])
    assert found.fingerprint != whole.fingerprint
    assert np.array_equal(found.train.x > 0, np.isin(whole.train.x, [whole.labels.index(w) for w in found.labels[1:]]))


def test_what_devices_send_is_charged_and_small(texts: Path):
    experiment = asked(texts, "data.words=3")
    found, whole = open_dataset(experiment), open_dataset(asked(texts))
    data, question = data_of(experiment, whole), counts_question(len(LIST))
    least = 0
    for device in range(4):
        _, y = data.examples(device)
        least += len(pack_sums(question, counts_of(y[y >= 0], len(LIST))))
    assert least <= found.statistics_bytes <= least + 4 * 3, "counts of the words that are on no list come on top"


def test_another_deal_gives_the_same_vocabulary(texts: Path):
    one, other = (
        open_dataset(asked(texts, "data.words=4", *more)) for more in ((), ("data.partition=iid", "data.devices=5"))
    )
    assert one.labels == other.labels


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("the\ntwo words\n", "line 2: expected one word"),
        ("the\n\n", "from 2 to 100000 words"),
        ("the\nTHE\n", "got 1"),
        (b"\xff\xfe", "cannot be read as UTF-8"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: str | bytes, told: str):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=told):
        read_vocabulary(path)


def test_what_does_not_go_together_is_refused(texts: Path):
    private = ("privacy.mode=central", "privacy.noise-multiplier=1", "selection.sampler=poisson", "upload.memory=none")
    for changes, told in (
        (("data.words=8",), "devices use 7 words"),
        (("data.words=1",), "0, or at least 2"),
        (("data.vocabulary=",), "needs data.vocabulary"),
        (("data.words=3", *private), "nobody has charged"),
        (("data.words=3", "masks.group=3", "train.cohort=3", "upload.codec=sketch:k=64"), "without a mask"),
    ):
        with pytest.raises(ConfigError, match=told):
            open_dataset(asked(texts, *changes))
    with pytest.raises(ConfigError, match=r"data\.words does nothing with"):
        parse_experiment("", ["data.dataset=shakespeare", "data.words=3"])
