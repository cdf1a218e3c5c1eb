"""`ecsq`: entropy-coded scalar quantization with low-rank prediction and row, column and sign contexts.

```
update ─ low-rank part out ─ round to multiples of Δ ─ sort by context ─ gaps, magnitudes, signs ─ ANS ─ payload
         lowrank, factors    rounding                  plan, layout      write, models, bits     ans
```
`read` goes the way back; `payload` puts the parts together.

Dead zone and step do pruning and quantization in one; the work is proportional to the non-zeros. All models are
integers, so a decoder in any language gets the same symbols, and the values are one float64 product and one rounding.

**Payload**, little endian. The order of tensors and their shapes come from the spec.

| bytes | what |
|---|---|
| 1 | form: 0 all zeros, nothing follows; 1 float32 of all tensors follow; 2 coded, as below |
| 4 | Δ, float32 > 0 |
| 1, 1 | shifts s₁, s₂, int8: level ±1 stands for ±(256 + s₁)/256·Δ, level ±k for ±(256·k + s₂)/256·Δ |
| … | side bits, most significant bit first, padded with zeros to a byte |
| a | ANS stream, see `ans`; does not end in a zero byte; empty if a = 0 |
| … | raw bits of gaps, then of magnitudes (``put``, `bits`), padded to a byte |
| … | raw signs, one bit each, 1 = minus, padded to a byte |
| … | zero bytes, only if needed to reach 1 byte per 256 non-zeros, the most a decoder accepts |

A tensor of shape (…, C) is a matrix of size/C rows and C columns; it is *two-dimensional* if both are above 1 and
it had at least two dimensions, else it is 1 × size. Below, ``eg(k)`` is an Exp-Golomb code of order k (`bits`).

**Side bits**, in this order:

1. Low rank: one bit; if 1: ratio (8 bits), u₁ + 128, u₂ + 128 (8 bits each), and for every two-dimensional tensor its
   rank r (4 bits). A tensor with r > 0 adds two tensors after all others: U (rows × r) and V (columns × r), in tensor
   order, U before V; they are coded like any other tensor from here on (two-dimensional if r > 1).
2. For every tensor: level T (5 bits; 0 = all zeros). If T > 0 and it is two-dimensional, three bits: has row classes,
   has column classes, has sign classes.
3. If any tensor has row or column classes: their frequency table (below, ≤ 32 symbols). If any has sign classes: their
   table (≤ 7 symbols).
4. First and last context with non-zeros (5 bits each); for each from first to last: the number of its non-zeros n
   (eg(4)); if n > 0, a bit "new magnitude table" (left out for the first, which is new), and the table if it is.
5. If any tensor has sign classes: for each group 1, 2, 3 a bit, and if it is 1 a table of ≤ 2 symbols.
6. a, the bytes of the ANS stream: eg(8).

**A frequency table**: symbols − 1 (eg(1)); m − 4 (4 bits, m ≤ 14); frequencies of symbols 1, 2, … as eg(max(0, m − 2 −
bit length of the number of symbols)); symbol 0 has what is missing to 2^m. All are shifted left by 20 − m. A model
with a single symbol takes no room in the ANS stream.

**ANS symbols**, in decoding order: row then column classes of every tensor in order; sign classes of every tensor; for
every context with non-zeros its n gap symbols (model `geometric(n, places)`) and its n magnitude symbols (its table);
the unlikely-sign bits of groups 1, 2, 3, each in coding order.

**Places**: the context of a place is clip(T + row class − 12 + column class − 12, 1, 31), with 12 where there are no
classes; rows and columns of class 0 hold only zeros and have no places. Places are ordered by context, then tensor,
row class, column class, row, column; a tensor with neither row nor column classes is one block in its own order.
A gap is the number of empty places since the last non-zero of the same context (or its start). Gap g and magnitude − 1
are sent as a bucket (`models.STARTS`: 0 … 15 alone, then four to an octave) plus the offset in it as raw bits.

**Signs**: class c of a column (0, 1–3 mostly plus, 4–6 mostly minus) puts its non-zeros into group 0 or 1 + (c − 1)
mod 3. Group 0 sends the sign raw, the others whether it is the unlikely one.

**Values**: x̂ = float32(L + level), each term in float64 with the products in the order written, clipped to float32's
range: level = (256·k + s)·(Δ/256) with the sign; L = (Σ_r u·v)·(Δ·ratio/32·2^−22), where u = 256·k + u₁ or u₂ with the
sign is a level of U in 256ths and v is `lowrank.basis` of the levels of V; the sum is exact.
"""

from fl_mobile.codecs.ecsq.codec import Ecsq, parse_ecsq

__all__ = ["Ecsq", "parse_ecsq"]
