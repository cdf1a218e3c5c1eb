"""Experiments worth starting from, as changes to the defaults: `fl-mobile new DIR --example NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Example(NamedTuple):
    """One row of `EXAMPLES`.

    Attributes:
        summary: A line of help.
        changes: ``key=value`` as ``--set`` takes them.
    """

    summary: str
    changes: tuple[str, ...]


EXAMPLES: Mapping[str, Example] = {
    "demo": Example("the defaults: 5,000 digits on 100 phones, uploads 100-fold smaller", ()),
    "camera": Example("the smart camera, which is the demo", ()),
    "thousand": Example(
        "uploads 1,000-fold and downloads 100-fold smaller than float32, nothing kept on phones (docs/thousand.md)",
        (
            "upload.codec=sketch:k=3072,bits=1",
            "download.mode=forward",
            "server.schedule=linear-tail",
            "server.schedule-start=0.5",
            "server.schedule-end=0.2",
        ),
    ),
    "keyboard": Example(
        "the next character, learnt by 1,069 roles of Shakespeare's plays, each on a phone of its own",
        (
            "data.dataset=shakespeare",
            "data.test-fraction=0.02",
            "model.name=char-gru",
            "train.rounds=120",
            "train.cohort=20",
            "train.epochs=1",
            "train.batch-size=5",
            "train.optimizer=momentum",
            "train.learning-rate=0.3",
            "train.clip-gradient-norm=1",
            "train.schedule=cosine",
            "upload.codec=ecsq:examples=80",
            "upload.target-ratio=106",
            "evaluation.interval=20",
            'output.recipes=["float32", "float16", "dynamic-int8"]',
        ),
    ),
    "activity": Example(
        "what somebody does, by the phone at their waist: 21 people train, nine others are the test",
        (
            "data.dataset=har",
            "model.name=har-cnn",
            "train.rounds=150",
            "train.cohort=21",
            "train.epochs=1",
            "train.batch-size=64",
            "train.learning-rate=0.2",
            "evaluation.interval=10",
        ),
    ),
    "segmentation": Example(
        "the class of every pixel: two handwritten digits in a picture, on 10 phones",
        (
            "data.dataset=two-digits",
            "data.devices=10",
            "model.name=tiny-unet",
            "train.rounds=40",
            "train.cohort=4",
            "train.epochs=5",
            "train.optimizer=adam",
            "train.learning-rate=0.003",
            "train.schedule=cosine",
            "evaluation.interval=5",
        ),
    ),
    "table": Example(
        "a table of 569 tumours at 10 hospitals, benign or malignant; features standardised by federated sums",
        (
            "data.dataset=breast-cancer",
            "data.devices=10",
            "model.name=tabular-mlp",
            "train.rounds=40",
            "train.epochs=2",
            "train.learning-rate=0.02",
        ),
    ),
}
