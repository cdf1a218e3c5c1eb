"""What can be done to a model's weights before they are converted: one row per tuning; the name decodes.

| part of the name | what holds for every tuned kernel afterwards |
|---|---|
| ``sparse-80`` | 80 % of its weights are zero, in dense layers by runs of four (Zhu & Gupta 2017) |
| ``sparse-2by4`` | of every four weights along the input at least two are zero |
| ``clustered-16`` | it holds at most 16 distinct values (Han et al. 2016, weight sharing) |
| ``qat`` | trained while seeing its own int8 rounding (Jacob et al. 2018) |

Parts combine in that order, each stage keeping what the one before it reached. A recipe is a tuning and a conversion:
``sparse-80-int8``. Importing this module loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.errors import ConfigError, nearest

ZERO_RUN = 4
"""Zeros of a dense kernel come in runs of this many inputs of one output, which lie side by side in the file.

Measured on the demo CNN at 80 % in every layer, after zip, dense ``int8`` = 1: single zeros 2.7 times smaller, runs of
four 3.3 at 0.3 points less accuracy, runs of sixteen 3.9 at 1.2. Runs of four are also what TFLite's sparse kernels
compute with.
"""


@dataclass(frozen=True)
class Tuning:
    """One row of the table.

    Attributes:
        name: Key in ``TUNINGS``; recipes begin with it.
        sparsity: Share of zeros of every tuned kernel; 0 leaves it dense.
        two_of_four: Zeros lie so that each group of four input weights has two.
        clusters: Most distinct values of a kernel; 0 is no clustering.
        quantized: Whether the last stage trains under fake int8 quantisation.
    """

    name: str
    sparsity: float = 0.0
    two_of_four: bool = False
    clusters: int = 0
    quantized: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        wanted = {"prune": bool(self.sparsity), "cluster": bool(self.clusters), "qat": self.quantized}
        return tuple(stage for stage, on in wanted.items() if on)


TUNINGS: dict[str, Tuning] = {
    "sparse-80": Tuning("sparse-80", sparsity=0.8),
    "sparse-90": Tuning("sparse-90", sparsity=0.9),
    "sparse-2by4": Tuning("sparse-2by4", sparsity=0.5, two_of_four=True),
    "clustered-16": Tuning("clustered-16", clusters=16),
    "qat": Tuning("qat", quantized=True),
    "sparse-80-qat": Tuning("sparse-80-qat", sparsity=0.8, quantized=True),
    "sparse-80-clustered-16": Tuning("sparse-80-clustered-16", sparsity=0.8, clusters=16),
    "sparse-80-clustered-16-qat": Tuning("sparse-80-clustered-16-qat", sparsity=0.8, clusters=16, quantized=True),
}


def find_tuning(name: str) -> Tuning:
    """Returns the row called ``name``.

    Raises:
        ConfigError: No row has that name; the message holds the nearest.

    >>> find_tuning("sparse-80-clustered-16").stages
    ('prune', 'cluster')
    """
    if name not in TUNINGS:
        raise ConfigError(f"tuning {name!r} is not known.{nearest(name, TUNINGS)}")
    return TUNINGS[name]
