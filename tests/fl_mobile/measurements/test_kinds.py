"""What a codec makes of each kind of tensor; what rows that nobody touched cost."""

from __future__ import annotations

import numpy as np
import pytest

from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError
from fl_mobile.measurements.kinds import CONVOLUTION, DENSE, EMBEDDING, RECURRENT, VECTOR, by_kind, kind_of
from fl_mobile.measurements.table import measure_kinds
from fl_mobile.tensors import Tensors, TensorSpec

ROWS, WIDTH, TOUCHED = 2000, 32, 40


def update(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    table = np.zeros((ROWS, WIDTH), np.float32)
    table[rng.choice(ROWS, TOUCHED, replace=False)] = rng.standard_normal((TOUCHED, WIDTH))
    others = {"gru/gru_cell/kernel": (8, 24), "gru/gru_cell/recurrent_kernel": (8, 24), "conv/kernel": (3, 3, 2, 4),
              "dense/kernel": (24, 10), "dense/bias": (10,)}  # fmt: skip
    drawn = {path: rng.standard_normal(shape).astype(np.float32) for path, shape in others.items()}
    return {"embedding/embeddings": table, **drawn}


SPEC = {path: TensorSpec(value.shape) for path, value in update().items()}


def test_every_tensor_is_of_one_kind() -> None:
    found = {path: kind_of(path, tensor.shape) for path, tensor in SPEC.items()}
    assert list(found.values()) == [EMBEDDING, RECURRENT, RECURRENT, CONVOLUTION, DENSE, VECTOR]


@pytest.mark.parametrize("codec", ["ecsq", "q8+deflate", "topk:0.1+q8"])
def test_kinds_add_up_to_the_model_and_their_bytes_to_about_the_packet(codec: str) -> None:
    rows = by_kind(parse_codec(codec), [update(0), update(1)], SPEC)
    assert [row.kind for row in rows] == [EMBEDDING, RECURRENT, CONVOLUTION, DENSE, VECTOR]
    assert sum(row.parameters for row in rows) == sum(tensor.size for tensor in SPEC.values())
    assert rows[0].rows_untouched == pytest.approx(1 - TOUCHED / ROWS)
    assert all(row.rows_untouched == 0 for row in rows[1:])
    for row in rows:
        assert row.bits_per_parameter == pytest.approx(8 * row.packet_bytes / row.parameters)
        assert row.ratio == pytest.approx(32 / row.bits_per_parameter)
    again = measure_kinds([update(0), update(1)], [codec], spec=SPEC)
    assert again == rows


def test_rows_that_nobody_touched_cost_a_fraction_of_a_bit_each() -> None:
    codec = parse_codec("ecsq:abs=0.5")
    table = update()["embedding/embeddings"]
    kept = table[(table != 0).any(axis=1)]
    path = "embedding/embeddings"
    whole, alone = (by_kind(codec, [{path: t}], {path: TensorSpec(t.shape)})[0].packet_bytes for t in (table, kept))
    assert 8 * (whole - alone) / (ROWS - TOUCHED) < 0.3
    shuffled = np.random.default_rng(0).permutation(table.ravel()).reshape(table.shape)
    scattered = by_kind(codec, [{path: shuffled}], {path: TensorSpec(table.shape)})[0].packet_bytes
    assert whole < 0.8 * scattered, "the codec wins from rows, not from zeros alone"


def test_a_codec_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown"):
        measure_kinds([update()], ["q9"], spec=SPEC)
