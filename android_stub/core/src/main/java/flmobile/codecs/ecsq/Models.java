package flmobile.codecs.ecsq;

import flmobile.core.WireException;

/**
 * Integer-only probability models, and the buckets that turn any number into a symbol plus raw bits. A model is {@code
 * long[A]} frequencies that sum to 2^20.
 */
final class Models {
    static final int PRECISION = 20;
    static final int LINEAR = 16;
    private static final int MIN_TABLE_BITS = 4;
    private static final int MAX_TABLE_BITS = 14;
    private static final long ONE = 1L << 31;

    /** First number of every bucket: 0 … 15 alone, then four buckets to every octave. */
    static final long[] STARTS = starts();

    private Models() {}

    private static long[] starts() {
        int octaves = 40 - 4;
        long[] out = new long[LINEAR + 4 * octaves];
        for (int i = 0; i < LINEAR; i++) {
            out[i] = i;
        }
        for (int octave = 0; octave < octaves; octave++) {
            for (int quarter = 0; quarter < 4; quarter++) {
                out[LINEAR + 4 * octave + quarter] = (16L << octave) + ((long) quarter << 2 + octave);
            }
        }
        return out;
    }

    static int bitLength(long number) {
        return 64 - Long.numberOfLeadingZeros(number);
    }

    /** Returns the bucket of a number. */
    static int bucketOf(long number) {
        if (number < LINEAR) {
            return (int) number;
        }
        int octave = bitLength(number) - 1;
        return LINEAR + 4 * (octave - 4) + (int) (number >> octave - 2 & 3);
    }

    /** Returns the raw bits that tell the numbers of a bucket apart. */
    static int bucketBits(int symbol) {
        return symbol < LINEAR ? 0 : 2 + (symbol - LINEAR) / 4;
    }

    /** Returns the model of the gap between marks when {@code count} of {@code slots} places are marked at random. */
    static long[] geometric(long count, long slots) {
        int symbols = Math.max(2, bucketOf(slots - 1) + 1);
        long[] frequencies = new long[symbols];
        long power = (slots - count << 31) / slots;
        long reach = ONE;
        int width = 0;
        for (int symbol = 0; symbol < symbols - 1; symbol++) {
            for (; width < bucketBits(symbol); width++) {
                power = power * power >> 31;
            }
            long after = reach * power >> 31;
            frequencies[symbol] = (reach >> 11) - (after >> 11);
            reach = after;
        }
        frequencies[symbols - 1] = reach >> 11;
        return frequencies;
    }

    /**
     * Writes a table made for counts, and returns it scaled to 2^20. Every symbol that occurs gets one part first; the
     * rest is shared out in proportion, by largest remainder.
     */
    static long[] writeFitted(BitBuffer side, long[] counts, int symbols) {
        long total = 0;
        int used = 0;
        for (int symbol = 0; symbol < symbols; symbol++) {
            total += counts[symbol];
            used += counts[symbol] != 0 ? 1 : 0;
        }
        int wanted = Math.max(2 * bitLength(total) / 3 + 1, bitLength(2L * used));
        int bits = Math.min(MAX_TABLE_BITS, Math.max(MIN_TABLE_BITS, wanted));
        long[] table = new long[symbols];
        long[] rest = new long[symbols];
        long left = 1L << bits;
        for (int symbol = 0; symbol < symbols; symbol++) {
            long share = counts[symbol] * ((1L << bits) - used);
            table[symbol] = share / total + (counts[symbol] > 0 ? 1 : 0);
            rest[symbol] = share % total;
            left -= table[symbol];
        }
        for (; left > 0; left--) {
            int largest = 0;
            for (int symbol = 1; symbol < symbols; symbol++) {
                largest = rest[symbol] > rest[largest] ? symbol : largest;
            }
            table[largest]++;
            rest[largest] = -1;
        }
        side.golomb(symbols - 1, 1);
        side.put(bits - MIN_TABLE_BITS, 4);
        int order = tableOrder(symbols, bits);
        for (int symbol = 1; symbol < symbols; symbol++) {
            side.golomb(table[symbol], order);
        }
        for (int symbol = 0; symbol < symbols; symbol++) {
            table[symbol] <<= PRECISION - bits;
        }
        return table;
    }

    /** Reads a table of at most so many symbols, scaled to 2^20. */
    static long[] readTable(BitBuffer.Source source, int maxSymbols) {
        int symbols = (int) source.golomb(1, maxSymbols - 1) + 1;
        int bits = (int) source.take(4) + MIN_TABLE_BITS;
        if (bits > MAX_TABLE_BITS) {
            throw new WireException("value", "a frequency table has more than 2^14 parts");
        }
        int order = tableOrder(symbols, bits);
        long[] table = new long[symbols];
        long left = 1L << bits;
        for (int symbol = 1; symbol < symbols; symbol++) {
            table[symbol] = source.golomb(order, 1L << bits);
            left -= table[symbol];
            table[symbol] <<= PRECISION - bits;
        }
        if (left < 0) {
            throw new WireException("value", "a frequency table sums to more than it may");
        }
        table[0] = left << PRECISION - bits;
        return table;
    }

    private static int tableOrder(int symbols, int bits) {
        return Math.max(0, bits - 2 - bitLength(symbols));
    }
}
