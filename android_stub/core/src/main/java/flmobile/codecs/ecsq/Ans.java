package flmobile.codecs.ecsq;

import java.util.Arrays;

/** Asymmetric numeral systems (Duda, PCS 2015): a 64-bit state over a stack of 32-bit words; see the Python package. */
final class Ans {
    private static final int BITS = 24;
    private long state;
    private int[] words;
    private int count;

    /** An empty stack. */
    Ans() {
        words = new int[64];
    }

    /** The stack that {@link #toBytes} made these bytes of. */
    Ans(byte[] stream, int begin, int length) {
        words = new int[(length + 3) / 4];
        for (int i = 0; i < length; i++) {
            words[i / 4] |= (stream[begin + i] & 0xFF) << 8 * (i % 4);
        }
        count = words.length;
        for (int i = Math.min(2, count); i > 0; i--) {
            state = state << 32 | words[--count] & 0xFFFFFFFFL;
        }
    }

    private static int[] borders(long[] frequencies) {
        long room = (1L << BITS) - frequencies.length;
        int[] borders = new int[frequencies.length + 1];
        long below = 0;
        for (int i = 0; i < frequencies.length; i++) {
            borders[i] = (int) (below * room >> Models.PRECISION) + i;
            below += frequencies[i];
        }
        borders[frequencies.length] = 1 << BITS;
        return borders;
    }

    /** Encodes symbols {@code from} to {@code to} − 1, the last one first; a model of one symbol takes no room. */
    void push(int[] symbols, int from, int to, long[] frequencies) {
        if (frequencies.length < 2) {
            return;
        }
        int[] borders = borders(frequencies);
        for (int i = to - 1; i >= from; i--) {
            int low = borders[symbols[i]];
            long width = borders[symbols[i] + 1] - low;
            if (state >>> 40 >= width) {
                put((int) state);
                state >>>= 32;
            }
            long whole = state >= 0 ? state / width : Long.divideUnsigned(state, width);
            state = (whole << BITS) + low + (state - whole * width);
        }
    }

    /** Decodes into symbols {@code from} to {@code to} − 1; some symbols of the model whatever the bytes. */
    void pop(int[] symbols, int from, int to, long[] frequencies) {
        if (frequencies.length < 2) {
            Arrays.fill(symbols, from, to, 0);
            return;
        }
        int[] borders = borders(frequencies);
        for (int i = from; i < to; i++) {
            int rest = (int) state & (1 << BITS) - 1;
            int symbol = 0;
            for (int above = borders.length - 1; above - symbol > 1; ) {
                int middle = symbol + above >>> 1;
                if (borders[middle] <= rest) {
                    symbol = middle;
                } else {
                    above = middle;
                }
            }
            int low = borders[symbol];
            state = (state >>> BITS) * (borders[symbol + 1] - low) + (rest - low);
            if (count > 0 && state >>> 32 == 0) {
                state = state << 32 | words[--count] & 0xFFFFFFFFL;
            }
            symbols[i] = symbol;
        }
    }

    /** Returns the stream, without zero bytes at its end; the stack is used up. */
    byte[] toBytes() {
        for (; state != 0; state >>>= 32) {
            put((int) state);
        }
        byte[] out = new byte[4 * count];
        for (int i = 0; i < out.length; i++) {
            out[i] = (byte) (words[i / 4] >>> 8 * (i % 4));
        }
        int end = out.length;
        while (end > 0 && out[end - 1] == 0) {
            end--;
        }
        return Arrays.copyOf(out, end);
    }

    /** Whether every bit of the stream has been used. */
    boolean isEmpty() {
        return state == 0 && count == 0;
    }

    private void put(int word) {
        if (count == words.length) {
            words = Arrays.copyOf(words, 2 * count);
        }
        words[count++] = word;
    }
}
