"""Fields of one width: the bytes of fields of any widths, and nothing but whole payloads is read."""

from __future__ import annotations

import numpy as np
import pytest

from fl_mobile.codecs.bits.fields import pack_fields, pack_fixed, unpack_fixed
from fl_mobile.errors import WireError
from tests.fl_mobile.samples import philox


@pytest.mark.parametrize("width", range(1, 33))
def test_fields_of_one_width_are_those_of_any_widths(width: int) -> None:
    for count in (0, 1, 7, 8, 9, 31, 100):
        values = philox(count).integers(0, 2**width, count)
        values[:1] = 2**width - 1
        packed = pack_fixed(values, width)
        assert packed == pack_fields(values, np.full(count, width))
        assert unpack_fixed(memoryview(packed), width, count).tolist() == values.tolist()


def test_other_lengths_and_set_padding_are_refused() -> None:
    packed = pack_fixed(np.arange(5), 3)
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(WireError, match="expected 2 bytes"):
            unpack_fixed(wrong, 3, 5)
    with pytest.raises(WireError, match="padding"):
        unpack_fixed(packed[:-1] + bytes([packed[-1] | 1]), 3, 5)
