package flmobile.codecs;

import flmobile.core.Reader;
import flmobile.core.WireException;
import flmobile.core.Writer;

/** Fields of equal width and unary numbers, most significant bit first, padded with zeros to a byte. */
final class Bits {
    private Bits() {}

    /** Returns {@code width}-bit numbers, 0 ≤ width ≤ 32; of wider ones the low bits. */
    static byte[] pack(long[] numbers, int width) {
        byte[] out = new byte[(int) (((long) numbers.length * width + 7) / 8)];
        long at = 0;
        for (long number : numbers) {
            for (int bit = width - 1; bit >= 0; bit--, at++) {
                if ((number >> bit & 1) != 0) {
                    out[(int) (at >> 3)] |= (byte) (128 >> (at & 7));
                }
            }
        }
        return out;
    }

    /** Returns {@code count} numbers of {@code width ≤ 32} bits; the padding is not looked at. */
    static long[] read(Reader reader, int count, int width) {
        int from = reader.take(((long) count * width + 7) / 8);
        byte[] data = reader.data();
        long[] out = new long[count];
        long at = 0;
        for (int i = 0; i < count; i++) {
            long number = 0;
            for (int bit = 0; bit < width; bit++, at++) {
                number = number << 1 | data[from + (int) (at >> 3)] >> 7 - (at & 7) & 1;
            }
            out[i] = number;
        }
        return out;
    }

    /** Reads as {@link #read}; the rest of the reader must be these numbers, and the padding zeros. */
    static long[] readExactly(Reader reader, int count, int width) {
        long bytes = ((long) count * width + 7) / 8;
        if (reader.left() != bytes) {
            throw new WireException("truncated", "raw bits: expected " + bytes + " bytes, got " + reader.left());
        }
        int padding = (int) (8 * bytes - (long) count * width);
        if (bytes > 0 && (reader.data()[reader.at() + (int) bytes - 1] & (1 << padding) - 1) != 0) {
            throw new WireException("value", "the padding of the raw bits is not zero");
        }
        return read(reader, count, width);
    }

    /** Returns flags as bits. */
    static byte[] packFlags(boolean[] flags) {
        byte[] out = new byte[(flags.length + 7) / 8];
        for (int i = 0; i < flags.length; i++) {
            if (flags[i]) {
                out[i >> 3] |= (byte) (128 >> (i & 7));
            }
        }
        return out;
    }

    /** Returns so many flags. */
    static boolean[] readFlags(Reader reader, int count) {
        int from = reader.take((count + 7L) / 8);
        boolean[] out = new boolean[count];
        for (int i = 0; i < count; i++) {
            out[i] = (reader.data()[from + (i >> 3)] & 128 >> (i & 7)) != 0;
        }
        return out;
    }

    /** Returns every number n as n 0 bits and a 1. */
    static byte[] unary(long[] numbers) {
        long bits = 0;
        for (long number : numbers) {
            bits += number + 1;
        }
        byte[] out = new byte[(int) ((bits + 7) / 8)];
        long at = -1;
        for (long number : numbers) {
            at += number + 1;
            out[(int) (at >> 3)] |= (byte) (128 >> (at & 7));
        }
        return out;
    }

    /** Returns {@code count} unary numbers that take at most {@code mostBits} bits together. */
    static long[] readUnary(Reader reader, int count, long mostBits) {
        long bits = 8 * Math.min(reader.left(), (mostBits + 7) / 8);
        int from = reader.at();
        byte[] data = reader.data();
        long[] out = new long[Math.min(count, (int) Math.min(bits, Integer.MAX_VALUE))];
        int found = 0;
        long last = -1;
        for (long at = 0; at < bits && found < count; at++) {
            if ((data[from + (int) (at >> 3)] & 128 >> (at & 7)) != 0) {
                out[found++] = at - last - 1;
                last = at;
            }
        }
        if (found < count) {
            throw new WireException("truncated", count + " positions expected, " + found + " found");
        }
        reader.take(count > 0 ? (last + 8) / 8 : 0);
        return out;
    }

    /** Writes the rising positions of what is kept among {@code count} values: a bitmap or Rice codes of the gaps. */
    static void writePositions(Writer out, int[] keep, int count) {
        int bitmapBytes = (count + 7) / 8;
        if (keep.length > 0) {
            long[] gaps = new long[keep.length];
            for (int i = 0; i < keep.length; i++) {
                gaps[i] = keep[i] - (i == 0 ? 0 : keep[i - 1] + 1);
            }
            double mean = (keep[keep.length - 1] + 1 - keep.length) / (double) keep.length;
            int guess = Math.getExponent(Math.max(1.0, mean * Math.log(2)));
            int best = -1;
            long least = Long.MAX_VALUE;
            for (int r = Math.max(0, guess - 1); r < Math.min(guess + 2, 32); r++) {
                long quotients = 0;
                for (long gap : gaps) {
                    quotients += gap >> r;
                }
                long bytes = (quotients + gaps.length + 7) / 8 + ((long) r * gaps.length + 7) / 8;
                if (bytes < least) {
                    least = bytes;
                    best = r;
                }
            }
            if (1 + least < bitmapBytes) {
                out.u8(1).varint(keep.length).u8(best);
                byte[] remainders = pack(gaps, best);
                for (int i = 0; i < gaps.length; i++) {
                    gaps[i] >>= best;
                }
                out.bytes(unary(gaps)).bytes(remainders);
                return;
            }
        }
        boolean[] kept = new boolean[count];
        for (int at : keep) {
            kept[at] = true;
        }
        out.u8(0).varint(keep.length).bytes(packFlags(kept));
    }

    /** Returns what {@link #writePositions} wrote: rising, below {@code count}. */
    static int[] readPositions(Reader reader, int count) {
        int form = reader.u8();
        int kept = reader.varint(count);
        if (form == 0) {
            boolean[] flags = readFlags(reader, count);
            int[] out = new int[kept];
            int found = 0;
            for (int i = 0; i < count; i++) {
                if (flags[i]) {
                    if (found < kept) {
                        out[found] = i;
                    }
                    found++;
                }
            }
            if (found != kept) {
                throw new WireException("value", "bitmap marks " + found + " values, its header says " + kept);
            }
            return out;
        }
        if (form != 1) {
            throw new WireException("value", "unknown position form " + form + ", expected 0 (bitmap) or 1 (gaps)");
        }
        int r = reader.u8();
        if (r > 31) {
            throw new WireException("value", "Rice parameter " + r + " is above 31");
        }
        long[] quotients = readUnary(reader, kept, (long) (count >> r) + kept);
        long[] low = read(reader, kept, r);
        int[] out = new int[kept];
        long at = -1;
        for (int i = 0; i < kept; i++) {
            at += (quotients[i] << r) + low[i] + 1;
            if (at >= count) {
                throw new WireException("value", "position " + at + " is outside the tensor's " + count + " values");
            }
            out[i] = (int) at;
        }
        return out;
    }

    /** Returns the most bytes that positions among {@code count} values take. */
    static long positionBytes(long count) {
        return 6 + (count + 7) / 8;
    }
}
