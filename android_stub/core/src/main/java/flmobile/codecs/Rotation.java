package flmobile.codecs;

import flmobile.core.Hashes;

/** A seeded random rotation of any length, in float32; see {@code fl_mobile/codecs/bits/rotation.py}. */
final class Rotation {
    private static final int LARGEST = 14;
    private static final int SMALLEST = 7;
    private final int[] blocks;
    /** Signs of the first round, then of the second. */
    private final float[] signs;

    /**
     * @param count values; what is rotated is longer by up to 127 zeros
     */
    Rotation(int count, long seed) {
        blocks = blocks(count);
        int size = 0;
        for (int length : blocks) {
            size += length;
        }
        signs = new float[2 * size];
        long draw = 0;
        for (int i = 0; i < signs.length; i++, draw >>>= 1) {
            if (i % 64 == 0) {
                draw = Hashes.stream(seed, i / 64);
            }
            signs[i] = (draw & 1) != 0 ? -1 : 1;
        }
    }

    /** Returns the lengths of the blocks that hold so many values, longest first. */
    static int[] blocks(int count) {
        int whole = count >> LARGEST;
        int rest = count & (1 << LARGEST) - 1;
        int tail = (rest & (1 << SMALLEST) - 1) != 0 ? 1 : 0;
        int[] out = new int[whole + Integer.bitCount(rest >> SMALLEST) + tail];
        java.util.Arrays.fill(out, 0, whole, 1 << LARGEST);
        int at = whole;
        for (int bit = LARGEST - 1; bit >= SMALLEST; bit--) {
            if ((rest >> bit & 1) != 0) {
                out[at++] = 1 << bit;
            }
        }
        if (tail > 0) {
            out[at] = 1 << SMALLEST;
        }
        return out;
    }

    /** Returns how many values are rotated, the zeros at the end among them. */
    int size() {
        return signs.length / 2;
    }

    /** Rotates {@code size()} values in place. */
    void rotate(float[] values) {
        turn(values, 0);
        hadamard(values);
        turn(values, size());
        hadamard(values);
    }

    /** Turns {@link #rotate} back, in place. */
    void unrotate(float[] values) {
        hadamard(values);
        turn(values, size());
        hadamard(values);
        turn(values, 0);
    }

    private void turn(float[] values, int from) {
        for (int i = 0; i < values.length; i++) {
            values[i] *= signs[from + i];
        }
    }

    /** Butterflies at rising distances, then one product; every sum goes through the array, which makes it float32. */
    private void hadamard(float[] values) {
        int at = 0;
        for (int length : blocks) {
            for (int distance = 1; distance < length; distance *= 2) {
                for (int first = at; first < at + length; first += 2 * distance) {
                    for (int i = first; i < first + distance; i++) {
                        float a = values[i];
                        float b = values[i + distance];
                        values[i] = a + b;
                        values[i + distance] = a - b;
                    }
                }
            }
            float[] unit = {(float) (1 / Math.sqrt(length))};
            for (int end = at + length; at < end; at++) {
                values[at] *= unit[0];
            }
        }
    }
}
