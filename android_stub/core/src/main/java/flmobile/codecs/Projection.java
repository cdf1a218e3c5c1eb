package flmobile.codecs;

import flmobile.core.Hashes;

/** A linear map of an update onto k numbers that a 64-bit key names; see {@code fl_mobile/codecs/sketch/projection.py}. */
public final class Projection {
    private static final long GOLDEN = 0x9E3779B97F4A7C15L;
    private static final int LARGEST_BLOCK = 1 << 14;
    private final long key;
    private final int k;
    /** Twice the bucket of each value, and 1 more if its sign is turned. */
    private final int[] codes;

    public Projection(long key, int values, int k) {
        this.key = key;
        this.k = k;
        int places = Math.toIntExact((long) k * ((values + (long) k - 1) / k));
        int[] code = new int[places];
        int[] place = new int[places];
        for (int i = 0; i < places; i++) {
            place[i] = i;
        }
        long state = key;
        for (int i = places - 1; i >= 0; i--) {
            state += GOLDEN;
            long draw = Hashes.mixed(state);
            int j = (int) ((draw >>> 32) * (i + 1) >>> 32);
            int taken = place[j];
            place[j] = place[i];
            place[i] = taken;
            code[i] = 2 * (taken % k) + (int) (draw & 1);
        }
        codes = java.util.Arrays.copyOf(code, values);
    }

    /** Returns the key of a round's projection in the run that a seed names. */
    public static long roundKey(long seed, long round) {
        return Hashes.stream(seed, round);
    }

    /** Returns the signed sums of the buckets. */
    double[] sums(float[] values) {
        double[] sums = new double[k];
        for (int i = 0; i < codes.length; i++) {
            sums[codes[i] >> 1] += (codes[i] & 1) != 0 ? -values[i] : values[i];
        }
        return sums;
    }

    /** Returns for each value its bucket's number, with its own sign. */
    float[] spread(double[] numbers) {
        float[] out = new float[codes.length];
        for (int i = 0; i < out.length; i++) {
            float number = Quantizer.clipped(numbers[codes[i] >> 1]);
            out[i] = (codes[i] & 1) != 0 ? -number : number;
        }
        return out;
    }

    /** Adds to each total its bucket's number times {@code gain}, with its own sign. */
    public void addTo(long[] totals, byte[] numbers, long gain) {
        for (int i = 0; i < totals.length; i++) {
            long number = numbers[codes[i] >> 1] * gain;
            totals[i] += (codes[i] & 1) != 0 ? -number : number;
        }
    }

    /** Rotates in place; lengths are kept. */
    void rotate(double[] numbers) {
        double[] signs = signs();
        turn(numbers, signs, 0);
        mix(numbers);
        turn(numbers, signs, k);
        mix(numbers);
        divide(numbers);
    }

    /** Turns {@link #rotate} back, in place. */
    void unrotate(double[] numbers) {
        double[] signs = signs();
        mix(numbers);
        turn(numbers, signs, k);
        mix(numbers);
        turn(numbers, signs, 0);
        divide(numbers);
    }

    /** Returns the lengths of the blocks that are rotated, longest first. */
    static int[] blocks(int k) {
        int whole = k / LARGEST_BLOCK;
        int rest = k % LARGEST_BLOCK;
        int[] out = new int[whole + Integer.bitCount(rest)];
        java.util.Arrays.fill(out, 0, whole, LARGEST_BLOCK);
        for (int bit = 13, at = whole; bit >= 0; bit--) {
            if ((rest >> bit & 1) != 0) {
                out[at++] = 1 << bit;
            }
        }
        return out;
    }

    private double[] signs() {
        double[] signs = new double[2 * k];
        long state = ~key;
        long draw = 0;
        for (int i = 0; i < signs.length; i++, draw >>>= 1) {
            if (i % 64 == 0) {
                state += GOLDEN;
                draw = Hashes.mixed(state);
            }
            signs[i] = (draw & 1) != 0 ? -1 : 1;
        }
        return signs;
    }

    private static void turn(double[] numbers, double[] signs, int from) {
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] *= signs[from + i];
        }
    }

    private static void mix(double[] numbers) {
        int at = 0;
        for (int length : blocks(numbers.length)) {
            for (int h = 1; h < length; h *= 2) {
                for (int i = at; i < at + length; i += 2 * h) {
                    for (int j = i; j < i + h; j++) {
                        double a = numbers[j];
                        double b = numbers[j + h];
                        numbers[j] = a + b;
                        numbers[j + h] = a - b;
                    }
                }
            }
            at += length;
        }
    }

    private static void divide(double[] numbers) {
        int at = 0;
        for (int length : blocks(numbers.length)) {
            for (int end = at + length; at < end; at++) {
                numbers[at] /= length;
            }
        }
    }
}
