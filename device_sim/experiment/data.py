"""[data] of an experiment: which examples there are, and which device holds which."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_sim.client_data.partition import PARTITIONERS
from device_sim.datasets import DATASETS, DataOptions
from device_sim.datasets.records import TOKENS
from device_sim.datasets.scaling import AUTO as BY_DATASET
from device_sim.datasets.scaling import PUBLIC, STANDARDIZE
from device_sim.experiment.keys import key, positive
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.table import check_row

ON_DEMAND = "on-demand"
"""Value of data.partition: examples come when a device is asked, of dataset synthetic or of a function in Python."""

PARTITIONS = (*PARTITIONERS, ON_DEMAND)


@dataclass(frozen=True)
class Data:
    """[data]: which examples there are, and which device holds which."""

    dataset: str = key("mnist-5k", "a name from `fl-mobile datasets`")
    path: str = key(
        "", "file or folder of npz, image-folder and local copies; empty looks in the usual places", "pictures"
    )
    test_fraction: float = key(0.2, "held out, stratified by class, where the dataset has no test part of its own")
    devices: int = key(100, "phones that hold the training examples; natural: left at 100, as many as the data knows")
    partition: str = key(
        "", f"{' | '.join(PARTITIONS)}; empty is natural where devices are known, else dirichlet", "natural"
    )
    alpha: float = key(0.3, "dirichlet: smaller is more skewed; quantity-skew: spread of the sizes")
    shards_per_device: int = key(2, "shards: label-sorted slices each device gets")
    examples_per_device: int = key(20, "on-demand: pictures a device makes when it is asked, the same ones every time")
    min_examples: int = key(1, "no device holds fewer; 0 allows empty devices")
    target: str = key("", "csv: column that is to be told, or several parted by commas; empty is the last", "price")
    device_column: str = key(
        "", "csv: column that says whose a row is; empty is the one called device, if any", "device"
    )
    weight_column: str = key("", "csv: column that says what a row weighs in the loss and in metrics", "weight")
    fill: tuple[str, ...] = key(
        (), "csv: column=number for missing cells, by means that anyone may know", ("age=38.6", "weight=71")
    )
    window: int = key(0, "har, sequence-folder: samples of a recording that are one example; 0 is 128")
    hop: int = key(0, "har, sequence-folder: samples after which the next window begins; 0 is half a window")
    standardize: str = key(
        BY_DATASET, f"{' | '.join(STANDARDIZE)}: features and numbers, by data.scaling or by sums that devices send"
    )
    scaling: tuple[str, ...] = key(
        (), "column=mean:spread that anyone may know; of all other columns mean:spread", ("age=38.6:12.1", "0:1")
    )
    ranges: tuple[str, ...] = key(
        (), "column=low:high that anyone may know: under [privacy] what devices' sums are cut off at", ("age=0:120",)
    )
    tokens: str = key("", f"texts: {' | '.join(TOKENS)}; empty is characters", "words")
    vocabulary: str = key("", "texts in words: a file that anyone may know, a word a line", "words.txt")
    words: int = key(0, "texts in words: so many of the file, those that devices use most, by sums they send; 0 is all")
    image_size: str = key("", "image-folder, synthetic: HEIGHTxWIDTH every picture is scaled to, e.g. 96x96", "96x96")
    color: str = key("", "image-folder, synthetic: rgb | gray", "rgb")
    examples: int = key(0, "synthetic: how many; 0 is its default")
    classes: int = key(0, "synthetic: how many; 0 is its default")

    def __post_init__(self) -> None:
        positive("data", devices=self.devices, alpha=self.alpha, shards_per_device=self.shards_per_device)
        if not 0 < self.test_fraction < 1:
            raise ConfigError(f"data.test-fraction must be between 0 and 1, got {self.test_fraction}")
        DATASETS.admit(self.dataset)
        if self.partition:
            check_row("data.partition", self.partition, PARTITIONERS, [ON_DEMAND])
        if self.partition == ON_DEMAND and self.dataset not in ("synthetic", "npz"):
            raise ConfigError(f"data.partition on-demand needs data.dataset synthetic, got '{self.dataset}'")
        positive("data", examples_per_device=self.examples_per_device)
        if self.min_examples < 0:
            raise ConfigError(f"data.min-examples must be ≥ 0, got {self.min_examples}")
        if self.image_size and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", self.image_size):
            raise ConfigError(f"data.image-size must be HEIGHTxWIDTH, e.g. 96x96, got '{self.image_size}'")
        check_known("data.standardize", self.standardize, STANDARDIZE)
        if self.tokens:
            check_known("data.tokens", self.tokens, TOKENS)
        if self.words < 0 or self.words == 1:
            raise ConfigError(f"data.words must be 0, or at least 2, got {self.words}")
        if self.standardize == PUBLIC and not self.scaling:
            raise ConfigError('data.standardize = "public" needs data.scaling, e.g. ["age=38.6:12.1"]')
        if self.color not in ("", "rgb", "gray"):
            raise ConfigError(f"data.color must be rgb or gray, got '{self.color}'")

    @property
    def counts_devices(self) -> bool:
        """Whether ``devices`` is their number; else data that knows its devices has as many as it has."""
        natural = self.dataset in DATASETS and DATASETS[self.dataset].natural
        return self.devices != Data.devices or not natural or self.partition not in ("", "natural")

    def options(self) -> DataOptions:
        """Returns the options only some datasets read."""
        height, _, width = self.image_size.partition("x")
        size = (int(height), int(width)) if self.image_size else None
        made_up = self.dataset == "synthetic"
        return DataOptions(
            image_size=None if made_up else size,
            target=tuple(name.strip() for name in self.target.split(",")) if self.target else None,
            device_column=self.device_column or None,
            weight_column=self.weight_column or None,
            fill=tuple(self.fill) or None,
            color=None if made_up else self.color or None,
            shape=(*size, 3 if self.color == "rgb" else 1) if made_up and size else None,
            examples=self.examples or None,
            classes=self.classes or None,
            window=self.window or None,
            hop=self.hop or None,
            tokens=self.tokens or None,
            vocabulary=self.vocabulary or None,
        )
