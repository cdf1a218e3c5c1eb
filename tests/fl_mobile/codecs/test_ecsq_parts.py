"""The parts of ecsq against slow obvious versions: bits, models, the entropy coder, the order of places, low rank."""

from __future__ import annotations

import math

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.codecs.bits import fields
from fl_mobile.codecs.ecsq import ans, bits, layout, lowrank, models, plan, rounding, write
from fl_mobile.codecs.ecsq.factors import no_factors, scale_of
from fl_mobile.codecs.ecsq.rebuild import rebuild
from fl_mobile.codecs.ecsq.records import MAX_LEVEL, Factors, Levels
from fl_mobile.errors import WireError

NUMBERS = st.lists(st.integers(0, 2**31 - 1), max_size=60)


def bytes_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@given(numbers=NUMBERS, order=st.integers(0, 9))
def test_golomb_numbers_come_back_and_take_the_length_of_the_standard(numbers, order):
    buffer, at = np.zeros(600, np.uint8), 0
    for number in numbers:
        at = bits.golomb(buffer, at, number, order)
    assert at == sum(2 * (n + 2**order).bit_length() - 1 - order for n in numbers)
    cursor = np.zeros(1, np.int64)
    assert [bits.take_golomb(buffer, cursor, order, 2**31) for _ in numbers] == numbers
    assert cursor[0] == at


@given(written=st.lists(st.integers(1, 41).flatmap(lambda w: st.tuples(st.integers(0, 2**w - 1), st.just(w)))))
def test_numbers_are_written_bit_after_bit(written):
    buffer, at = np.zeros(sum(width for _, width in written) // 8 + 1, np.uint8), 0
    for value, width in written:
        at = bits.put(buffer, at, value, width)
    text = "".join(f"{value:0{width}b}" for value, width in written)
    assert "".join(f"{byte:08b}" for byte in buffer).startswith(text)
    cursor = np.zeros(1, np.int64)
    assert [bits.take(buffer, cursor, width) for _, width in written] == [value for value, _ in written]


@given(written=st.lists(st.integers(1, 32).flatmap(lambda w: st.tuples(st.integers(0, 2**w - 1), st.just(w)))))
def test_packed_fields_are_the_fields_written_one_after_the_other(written):
    values, widths = (np.array(part, np.int64) for part in (zip(*written, strict=True) if written else ((), ())))
    text = "".join(f"{value:0{width}b}" for value, width in written)
    data = fields.pack_fields(values, widths)
    assert "".join(f"{byte:08b}" for byte in data).startswith(text)
    assert len(data) == (len(text) + 7) // 8
    assert fields.unpack_fields(memoryview(data), widths).tolist() == values.tolist()


@given(number=st.integers(0, 2**39))
def test_a_bucket_and_its_offset_tell_the_number(number):
    symbol = int(models.bucket_of(number))
    assert symbol == np.searchsorted(models.STARTS, number, "right") - 1
    offset = number - models.STARTS[symbol]
    assert 0 <= offset < 2 ** models.bucket_bits(symbol)
    assert models.bucket_bits(symbol) == 0 if number < 16 else offset <= number / 4


@given(slots=st.integers(1, 10**9), share=st.floats(0, 1))
def test_the_gap_model_sums_up_and_is_the_geometric_distribution(slots, share):
    count = max(1, round(slots * share))
    model = models.geometric(count, slots).tolist()
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
    buffer, cursor = np.zeros(500, np.uint8), np.zeros(1, np.int64)
    end, scaled = models.write_fitted(buffer, 0, np.array(counts))
    read = models.read_table(buffer, cursor, 80)
    assert cursor[0] == end
    assert read.tolist() == scaled.tolist() == [frequency << (20 - precision) for frequency in table.tolist()]
    entropy = -sum(c * math.log2(c / sum(counts)) for c in counts if c)
    coded = -sum(c * math.log2(f / 2**precision) for c, f in zip(counts, table, strict=True) if c)
    # A symbol's share is rounded by less than one part for each symbol in use.
    assert coded <= entropy + 3 * np.count_nonzero(counts) * sum(counts) / 2**precision + 1


@st.composite
def run(draw):
    frequencies = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=50).filter(lambda c: sum(c) > 0))
    table, precision = models.fit_table(np.array(frequencies))
    symbols = draw(st.lists(st.integers(0, len(frequencies) - 1), max_size=200))
    return np.array(symbols, np.int64), table << (20 - precision)


def model_of_constriction(frequencies: np.ndarray) -> object:
    # Multiples of 2^-20 that sum to 1: the library's float64 arithmetic on them is exact (20 + 24 bits < 53).
    return constriction.stream.model.Categorical(frequencies / models.TOTAL, perfect=False)


def words_of(stream: bytes) -> np.ndarray:
    return np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)


@settings(deadline=None)
@given(runs=st.lists(run(), max_size=5))
def test_the_stream_is_what_constriction_writes(runs):
    """Also with symbols of frequency 0: every symbol keeps 2^-24."""
    stack, oracle = ans.new_stack(sum(len(symbols) for symbols, _ in runs)), constriction.stream.stack.AnsCoder()
    for symbols, frequencies in reversed(runs):
        ans.push(stack, symbols, frequencies)
        if len(symbols):
            oracle.encode_reverse(symbols.astype(np.int32), model_of_constriction(frequencies))
    stream = ans.to_bytes(stack).tobytes()
    assert stream == oracle.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    stack = ans.from_bytes(bytes_of(stream))
    for symbols, frequencies in runs:
        ans.pop(stack, decoded := np.empty_like(symbols), frequencies)
        assert decoded.tolist() == symbols.tolist()
    assert ans.is_empty(stack)


@pytest.mark.parametrize("count", [1, 127, 128, 2000])
@pytest.mark.parametrize("symbols", [2, 17, 90])
def test_few_and_many_symbols_come_back(count, symbols):
    """Tables to look them up in are short or long."""
    rng = np.random.default_rng(count)
    drawn = np.minimum(rng.geometric(0.2, count) - 1, symbols - 1)
    table, precision = models.fit_table(np.bincount(drawn, minlength=symbols) + (np.arange(symbols) % 3 == 0))
    stack, decoded = ans.new_stack(count), np.empty(count, np.int64)
    ans.push(stack, drawn, table << (20 - precision))
    stack = ans.from_bytes(ans.to_bytes(stack))
    ans.pop(stack, decoded, table << (20 - precision))
    assert decoded.tolist() == drawn.tolist()
    assert ans.is_empty(stack)


@settings(deadline=None)
@given(stream=st.binary(max_size=40).filter(lambda b: not b.endswith(b"\0")), runs=st.lists(run(), max_size=3))
def test_garbage_gives_the_symbols_that_constriction_gives(stream, runs):
    stack, oracle = ans.from_bytes(bytes_of(stream)), constriction.stream.stack.AnsCoder(words_of(stream))
    for symbols, frequencies in runs:
        ans.pop(stack, decoded := np.empty_like(symbols), frequencies)
        if len(symbols):
            expected = oracle.decode(model_of_constriction(frequencies), len(symbols))
            assert decoded.tolist() == expected.tolist()
    assert ans.is_empty(stack) == oracle.is_empty()


def slow_order(matrices, plans):
    """Every coded place as (context, tensor, row class, column class, row, column), sorted: the definition itself."""
    places = []
    for tensor, ((rows, columns), (level, down, across)) in enumerate(zip(matrices, plans, strict=True)):
        if not level:
            continue
        flat = down is None and across is None
        for r in range(rows):
            for c in range(columns):
                a = 12 if down is None else down[r]
                b = 12 if across is None else across[c]
                if a and b:
                    context = min(max(level + a + b - 24, 1), 31)
                    places.append((context, tensor, 0 if flat else a, 0 if flat else b, r, c))
    return sorted(places)


@st.composite
def plans_of(draw):
    matrices = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    classes = st.integers(0, 3).map(lambda c: c * 8)
    plans = []
    for rows, columns in matrices:
        down = draw(st.none() | st.lists(classes, min_size=rows, max_size=rows))
        across = draw(st.none() | st.lists(classes, min_size=columns, max_size=columns))
        plans.append((draw(st.integers(0, 31)), down, across))
    return matrices, plans


def as_arrays(matrices, plans) -> layout.Plans:
    flags = [
        layout.ROW_CLASSES * (down is not None) + layout.COLUMN_CLASSES * (across is not None)
        for _, down, across in plans
    ]
    rows, columns = zip(*matrices, strict=True)
    down = np.concatenate([np.array(p[1] or [0] * n, np.uint8) for p, n in zip(plans, rows, strict=True)])
    across = np.concatenate([np.array(p[2] or [0] * n, np.uint8) for p, n in zip(plans, columns, strict=True)])
    return layout.Plans(np.array([p[0] for p in plans]), np.array(flags), down, across, np.zeros_like(across))


@settings(deadline=None)
@given(case=plans_of())
def test_places_follow_the_definition_and_lead_back(case):
    order = slow_order(*case)
    shapes, plans = layout.shapes_of(tuple(case[0])), as_arrays(*case)
    expected = [int(shapes.offset[t] + r * shapes.columns[t] + c) for _, t, _, _, r, c in order]
    made = layout.lay_out(shapes, plans)
    positions, tensor = layout.to_positions(np.arange(len(order)), shapes, made)
    assert positions.tolist() == expected
    assert tensor.tolist() == [t for _, t, *_ in order]
    assert made.slots.tolist() == np.bincount([k for k, *_ in order], minlength=32).tolist()
    block, inside = layout.find_blocks(np.arange(shapes.offset[-1]), shapes, plans, made)
    assert [made.start[block[p]] + inside[p] for p in expected] == list(range(len(order)))
    assert (block < 0).sum() == shapes.offset[-1] - len(order)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.001, 0.02, 0.3, 1.0]), clustered=st.booleans())
def test_no_payload_without_classes_is_shorter_than_its_floor(seed, share, clustered):
    """So that what is not tried, because its floor is above what is there, could not have won."""
    rng = np.random.default_rng(seed)
    shapes = layout.shapes_of(((300, 20), (1, 40), (90, 70)))
    room = int(shapes.offset[-1] * (0.1 if clustered else 1))
    positions = np.sort(rng.choice(room, max(1, int(share * room)), replace=False))
    magnitudes = np.minimum(np.floor(rng.pareto(1.5, len(positions))).astype(np.int64) + 1, MAX_LEVEL)
    levels = Levels(positions, magnitudes, rng.random(len(positions)) < 0.5)
    plans = plan.flat_plans(positions, magnitudes, shapes)
    written = 8 * len(write.write_levels(levels, no_factors(shapes), shapes, plans))
    floor = write.flat_floor(levels, shapes, plans)
    assert 0.99 * floor - 64 <= written
    assert written <= 1.2 * floor + 3000, "a floor that is far below never spares anything"


@settings(deadline=None)
@given(sums=st.lists(st.one_of(st.just(0), st.integers(0, 70), st.integers(0, 10**6)), min_size=1, max_size=90))
def test_every_row_gets_the_class_that_costs_least_of_the_three_around_its_mean(sums):
    """Rows of few and of many magnitudes, more and fewer rows than are looked up."""
    if not any(sums):
        return
    found, members, mean = np.full(len(sums), 99, np.uint8), np.zeros(32, np.int64), sum(sums) / len(sums)
    plan._classify(np.arange(len(sums)), np.array(sums, np.int64), sum(sums), found, members)
    assert members.tolist() == np.bincount(found, minlength=32).tolist()
    first = [min(max(round(math.log2(total / mean) + 12), 1), 31) if total else 0 for total in sums]
    busy, count = sum(total > 0 for total in sums), np.bincount([one for one in first if one], minlength=33)

    def cost(total: int, which: int) -> float:
        price = math.log2(busy) - math.log2(count[which] + 0.5)
        return 2.0 ** (which - 12) * mean * math.log2(math.e) - total * (which - 12) + price

    for total, near, which in zip(sums, first, found.tolist(), strict=True):
        options = {near, max(near - 1, 1), min(near + 1, 31)} if total else {0}
        assert which in options
        least = min(cost(total, option) for option in options)
        assert cost(total, which) == pytest.approx(least, rel=1e-9, abs=1e-9)


@given(st.data())
def test_open_positions_are_those_of_the_definition(data):
    """Of any float32 numbers and steps, the smallest too: they decide how many random bits are drawn."""
    count = data.draw(st.integers(0, 40))
    step = float(np.float32(data.draw(st.floats(1, 2)) * 2.0 ** data.draw(st.integers(-149, 126))))
    unit = st.floats(-2, 2, width=32)
    values = np.array([data.draw(st.one_of(unit.map(lambda v: v * step), unit)) for _ in range(count)], np.float32)
    coarse = np.array([data.draw(st.sampled_from((0, 1, 128, 254, 255))) for _ in range(count)], np.uint8)
    sure = np.abs(values.astype(np.float64)) * (256.0 / step) <= coarse
    assert rounding._open(values, step, coarse).tolist() == np.flatnonzero(~sure).tolist()


def slow_basis(levels: np.ndarray) -> np.ndarray:
    """The definition, in Python's own integers."""
    norms = [math.isqrt(sum(int(v) ** 2 for v in column) << 16) for column in levels.T]
    return np.array(
        [[(int(v) * 2**22 + n // 2) // n if n else 0 for v, n in zip(row, norms, strict=True)] for row in levels]
    )


@given(st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=3, max_size=3), min_size=1, max_size=20))
def test_the_basis_is_that_of_the_definition_and_has_length_one_in_14_bits(rows):
    levels = np.array(rows, np.int64)
    unit = lowrank.basis(levels)
    assert unit.tolist() == slow_basis(levels).tolist()
    for column, exact in zip(unit.T, levels.T, strict=True):
        norm = math.sqrt(sum(int(v) ** 2 for v in exact))
        if norm:
            assert np.allclose(column, exact / norm * 2**14, atol=0.51 + 2**14 / 256 / norm)
        else:
            assert not column.any()


def test_a_basis_of_as_many_and_as_large_levels_as_there_can_be_stays_within_64_bits():
    levels = np.full((lowrank.MAX_COLUMNS, 1), MAX_LEVEL, np.int64)
    levels[::2] = -MAX_LEVEL
    assert lowrank.basis(levels)[:4].tolist() == [[-16], [16], [-16], [16]]


def slow_values(levels: Levels, factors: Factors, shapes, steps, scale: float) -> np.ndarray:
    """What the package's docstring says of values, in whole matrices of Python's integers."""
    step, *shifts = steps
    total, at = int(shapes.offset[-1]), int(shapes.offset[-1])
    signed = np.where(levels.negative, -levels.magnitudes, levels.magnitudes)
    level_of = dict(zip(levels.positions.tolist(), signed.tolist(), strict=True))

    def moved(level: int, first: int, second: int) -> int:
        return 256 * level + (0 if not level else (first if abs(level) == 1 else second) * (1 if level > 0 else -1))

    low = np.zeros(total)
    for t, rank in enumerate(factors.ranks.tolist()):
        rows, columns = int(shapes.rows[t]), int(shapes.columns[t])
        left, right = (
            np.array([level_of.get(at + first + i, 0) for i in range(count * rank)], np.int64).reshape(count, rank)
            for first, count in ((0, rows), (rows * rank, columns))
        )
        at += (rows + columns) * rank
        if rank:
            u = np.array(
                [[moved(int(v), factors.first_shift, factors.second_shift) for v in row] for row in left], object
            )
            product = u.dot(slow_basis(right).T.astype(object)).astype(float)
            low[shapes.offset[t] : shapes.offset[t + 1]] = product.ravel() * scale
    top = float(np.finfo(np.float32).max)
    own = np.array([moved(level_of.get(i, 0), *shifts) * (step / 256) for i in range(total)])
    return np.clip(np.where(own == 0, low, own + low), -top, top).astype(np.float32)


@st.composite
def rebuildable(draw):
    matrices = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3))
    most = [min(shape) if min(shape) > 1 else 0 for shape in matrices]
    ranks = np.array([draw(st.integers(0, rank)) for rank in most], np.int64)
    shapes = layout.shapes_of(tuple(matrices))
    room = int(shapes.offset[-1]) + sum((r + c) * k for (r, c), k in zip(matrices, ranks.tolist(), strict=True))
    positions = np.array(draw(st.lists(st.integers(0, room - 1), unique=True, max_size=room)), np.int64)
    sizes = st.one_of(st.integers(1, 3), st.integers(1, MAX_LEVEL))
    magnitudes = np.array([draw(sizes) for _ in positions], np.int64)
    negative = np.array([draw(st.booleans()) for _ in positions], np.bool_)
    shift = st.integers(-127, 127)
    factors = Factors(ranks, draw(st.integers(1, 255)), draw(shift), draw(shift))
    step = float(np.float32(draw(st.floats(1e-6, 1e30))))
    return Levels(positions, magnitudes, negative), factors, shapes, (step, draw(shift), draw(shift))


@settings(deadline=None)
@given(rebuildable())
def test_values_are_those_of_the_definition_to_the_bit_whatever_the_order_of_levels(case):
    levels, factors, shapes, steps = case
    scale = scale_of(factors.ratio, steps[0])
    found = np.zeros(shapes.offset[-1], np.float32)
    rebuild(levels, factors, shapes, steps, scale, found)
    assert found.tobytes() == (slow_values(levels, factors, shapes, steps, scale) + np.float32(0)).tobytes()


@pytest.mark.parametrize(("rows", "columns"), [(200, 60), (1000, 40), (3000, 20), (40, 300)])
def test_directions_are_those_of_the_svd(rows, columns):
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((rows, 4)) * [8, 4, 2, 1]) @ rng.standard_normal((4, columns))
    found = lowrank.directions(matrix.astype(np.float32), 0.05, 15)
    assert found is not None
    assert found.levels.shape == (columns, 4)
    assert np.allclose(found.sums, [np.abs(matrix).sum(), np.square(matrix).sum()])
    right = lowrank.basis(found.levels)
    rest = matrix - lowrank.coefficients(found, right) @ (right / 2**14).T
    assert np.square(rest).sum() < 1e-4 * np.square(matrix).sum()


def test_two_iterations_find_nearly_all_that_the_svd_does():
    rng = np.random.default_rng(1)
    low = (rng.standard_normal((784, 6)) * [4, 3, 2, 2, 1, 1]) @ rng.standard_normal((6, 200))
    matrix = (low + 0.5 * rng.standard_normal((784, 200))).astype(np.float32)
    found = lowrank.directions(matrix, 0.5, 6)
    assert found is not None
    kept = np.square(lowrank.coefficients(found, lowrank.basis(found.levels)), dtype=np.float64).sum()
    assert kept > 0.99 * np.square(np.linalg.svd(matrix)[1][:6].astype(np.float64)).sum()


@pytest.mark.parametrize("data", [b"", b"\x00" * 20, b"\xff"])
def test_a_number_or_table_that_cannot_be_is_a_wire_error(data):
    with pytest.raises(WireError):
        models.read_table(bytes_of(data), np.zeros(1, np.int64), 5)
