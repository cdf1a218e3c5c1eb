"""The parts of ecsq against slow obvious versions: bits, models, the entropy coder, the order of places, low rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.codecs.ecsq import ans, bits, layout, lowrank, models
from fl_mobile.errors import WireError

NUMBERS = st.lists(st.integers(0, 2**31 - 1), max_size=60)


@given(numbers=NUMBERS, order=st.integers(0, 9))
def test_golomb_numbers_come_back_and_take_the_length_of_the_standard(numbers, order):
    out = bits.BitWriter()
    for number in numbers:
        out.golomb(number, order)
    data = out.to_bytes()
    length = sum(2 * (n + 2**order).bit_length() - 1 - order for n in numbers)
    assert len(data) == (length + 7) // 8
    reader = bits.BitReader(data)
    assert [reader.golomb(order, 2**31) for _ in numbers] == numbers
    assert reader.bytes_touched() == len(data)


@given(fields=st.lists(st.integers(1, 32).flatmap(lambda w: st.tuples(st.integers(0, 2**w - 1), st.just(w)))))
def test_packed_fields_are_the_fields_written_one_after_the_other(fields):
    values, widths = (np.array(part, np.int64) for part in (zip(*fields, strict=True) if fields else ((), ())))
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    data = bits.pack_fields(values, widths)
    assert "".join(f"{byte:08b}" for byte in data).startswith(text)
    assert len(data) == (len(text) + 7) // 8
    assert bits.unpack_fields(memoryview(data), widths).tolist() == values.tolist()


@given(number=st.integers(0, 2**39))
def test_a_bucket_and_its_offset_tell_the_number(number):
    symbol = int(models.bucket(np.array([number]))[0])
    offset = number - models.STARTS[symbol]
    assert 0 <= offset < 2 ** models.WIDTHS[symbol]
    assert symbol == models.bucket_of(number)
    assert models.WIDTHS[symbol] == 0 if number < 16 else offset <= number / 4


@given(slots=st.integers(1, 10**9), share=st.floats(0, 1))
def test_the_gap_model_sums_up_and_is_the_geometric_distribution(slots, share):
    count = max(1, round(slots * share))
    model = models.geometric(count, slots)
    assert sum(model) == models.TOTAL
    assert min(model) >= 0
    p = count / slots
    for symbol in (0, 3, 15, 16, 22):
        if symbol < len(model) - 1:
            low, high = models.STARTS[symbol], models.STARTS[symbol + 1]
            exact = (1 - p) ** float(low) - (1 - p) ** float(high)
            assert model[symbol] / models.TOTAL == pytest.approx(exact, abs=3 / models.TOTAL + 1e-7 * float(high))


@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=80).filter(lambda c: sum(c) > 0))
def test_a_fitted_table_travels_and_gives_every_symbol_a_part(counts):
    table, precision = models.fit_table(np.array(counts))
    assert sum(table) == 2**precision
    assert all(frequency > 0 for frequency, count in zip(table, counts, strict=True) if count)
    out = bits.BitWriter()
    models.write_table(out, table, precision)
    read = models.read_table(bits.BitReader(out.to_bytes()), 80)
    assert read == models.scale_table(table, precision)
    entropy = -sum(c * math.log2(c / sum(counts)) for c in counts if c)
    coded = -sum(c * math.log2(f / 2**precision) for c, f in zip(counts, table, strict=True) if c)
    # A symbol's share is rounded by less than one part for each symbol in use.
    assert coded <= entropy + 3 * np.count_nonzero(counts) * sum(counts) / 2**precision + 1


@st.composite
def run(draw):
    frequencies = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=50).filter(lambda c: sum(c) > 0))
    table, precision = models.fit_table(np.array(frequencies))
    symbols = draw(st.lists(st.integers(0, len(frequencies) - 1), max_size=200))
    return ans.Run(np.array(symbols, np.int32), models.scale_table(table, precision))


@settings(deadline=None)
@given(runs=st.lists(run(), max_size=5))
def test_both_coders_write_the_same_bytes_and_read_each_other(runs):
    """Also with symbols of frequency 0: every symbol keeps 2^-24."""
    rust, python = ans.coder_named("constriction"), ans.PYTHON
    stream = python.encode(runs)
    assert rust.encode(runs) == stream
    for coder in (rust, python):
        decoder = coder.decoder(stream)
        for symbols, frequencies in runs:
            assert decoder.take(len(symbols), frequencies).tolist() == symbols.tolist()
        assert decoder.is_empty()


@settings(deadline=None)
@given(stream=st.binary(max_size=40).filter(lambda b: not b.endswith(b"\0")), runs=st.lists(run(), max_size=3))
def test_both_decoders_agree_on_garbage(stream, runs):
    decoders = [coder.decoder(stream) for coder in (ans.coder_named("constriction"), ans.PYTHON)]
    for symbols, frequencies in runs:
        first, second = (decoder.take(len(symbols), frequencies).tolist() for decoder in decoders)
        assert first == second
    assert decoders[0].is_empty() == decoders[1].is_empty()


def slow_order(shapes, plans):
    """Every coded place as (context, tensor, row class, column class, row, column), sorted: the definition itself."""
    places = []
    for tensor, ((rows, columns), plan) in enumerate(zip(shapes, plans, strict=True)):
        if not plan.level:
            continue
        flat = plan.rows is None and plan.columns is None
        for r in range(rows):
            for c in range(columns):
                a = 12 if plan.rows is None else int(plan.rows[r])
                b = 12 if plan.columns is None else int(plan.columns[c])
                if a and b:
                    context = min(max(plan.level + a + b - 24, 1), 31)
                    places.append((context, tensor, 0 if flat else a, 0 if flat else b, r, c))
    return sorted(places)


@st.composite
def plans_of(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    classes = st.integers(0, 3).map(lambda c: c * 8)
    plans = []
    for rows, columns in shapes:
        down = draw(st.none() | st.lists(classes, min_size=rows, max_size=rows))
        across = draw(st.none() | st.lists(classes, min_size=columns, max_size=columns))
        plans.append(
            layout.TensorPlan(
                draw(st.integers(0, 31)),
                None if down is None else np.array(down, np.uint8),
                None if across is None else np.array(across, np.uint8),
            )
        )
    return shapes, plans


@settings(deadline=None)
@given(case=plans_of())
def test_places_follow_the_definition_and_lead_back(case):
    shapes, plans = case
    order = slow_order(shapes, plans)
    offsets = np.cumsum([0, *(r * c for r, c in shapes)])
    expected = [int(offsets[t] + r * shapes[t][1] + c) for _, t, _, _, r, c in order]
    fast = layout.Layout(shapes, plans)
    positions, tensor = fast.to_positions(np.arange(len(order)))
    assert positions.tolist() == expected
    assert tensor.tolist() == [t for _, t, *_ in order]
    assert fast.slots.tolist() == np.bincount([k for k, *_ in order], minlength=32).tolist()
    places = fast.to_places(np.arange(offsets[-1]))
    assert [places[p] for p in expected] == list(range(len(order)))
    assert (places < 0).sum() == offsets[-1] - len(order)


@given(st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=3, max_size=3), min_size=1, max_size=20))
def test_the_basis_has_length_one_in_14_bits_and_integer_products_are_exact(rows):
    levels = np.array(rows, np.int64)
    unit = lowrank.basis(levels)
    for column, exact in zip(unit.T, levels.T, strict=True):
        norm = math.sqrt(sum(int(v) ** 2 for v in exact))
        if norm:
            assert np.allclose(column, exact / norm * 2**14, atol=0.51 + 2**14 / 256 / norm)
        else:
            assert not column.any()
    left = levels[::-1] * 256
    exact_product = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in unit] for x in left]
    assert lowrank.product(left, unit).astype(object).tolist() == exact_product


def test_directions_are_those_of_the_svd():
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((200, 4)) * [8, 4, 2, 1]) @ rng.standard_normal((4, 60))
    right = lowrank.directions(matrix.astype(np.float32), 0.05, 15)
    assert right is not None
    assert right.shape == (60, 4)
    left = lowrank.coefficients(matrix, lowrank.basis(right))
    rest = matrix - left @ (lowrank.basis(right) / 2**14).T
    assert np.square(rest).sum() < 1e-4 * np.square(matrix).sum()


@pytest.mark.parametrize("data", [b"", b"\x00" * 20, b"\xff"])
def test_a_number_or_table_that_cannot_be_is_a_wire_error(data):
    with pytest.raises(WireError):
        models.read_table(bits.BitReader(data), 5)
