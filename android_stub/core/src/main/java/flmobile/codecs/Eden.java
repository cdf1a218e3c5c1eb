package flmobile.codecs;

import flmobile.core.Hashes;
import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Writer;
import java.util.Arrays;

/** Random rotation, Lloyd–Max levels, unbiased scale; see {@code fl_mobile/codecs/eden.py}. */
final class Eden implements Quantizer {
    private static final double[][] POSITIVE_CENTROIDS = {
        {},
        {0.7978845608},
        {0.4527800398, 1.5104176087},
        {0.2450941791, 0.7560052812, 1.3439092613, 2.1519457045},
        {0.1283950299, 0.3880482996, 0.6567591186, 0.9423404419, 1.2562311512, 1.6180464059, 2.0690172265, 2.7325896111},
    };
    private static final long SAMPLE = 0xC0FFEEL << 32;
    /** 1 to 4, or which fraction of the values is sent at 1 bit each. */
    private final double bits;
    private final int width;
    private final double[] centroids;

    Eden(double bits) {
        this.bits = bits;
        width = Math.max(1, (int) bits);
        centroids = centroids(width);
    }

    /** Returns the Lloyd–Max levels of N(0, 1) in so many bits, rising. */
    static double[] centroids(int bits) {
        double[] half = POSITIVE_CENTROIDS[bits];
        double[] out = new double[2 * half.length];
        for (int i = 0; i < half.length; i++) {
            out[half.length + i] = half[i];
            out[half.length - 1 - i] = -half[i];
        }
        return out;
    }

    @Override
    public void encode(float[] values, Philox rng, Writer out) {
        if (values.length == 0) {
            return;
        }
        long seed = rng.next() >>> 32;
        double largest = largest(values);
        Rotation rotation = new Rotation(values.length, seed);
        float[] z = new float[rotation.size()];
        for (int i = 0; i < values.length; i++) {
            z[i] = (float) (values[i] / (largest == 0 ? 1 : largest));
        }
        rotation.rotate(z);
        int[] blocks = Rotation.blocks(values.length);
        float[] scales = new float[blocks.length];
        long[] levels = new long[z.length];
        int count = 0;
        for (int b = 0, at = 0; b < blocks.length; at += blocks[b++]) {
            int[] level = new int[blocks[b]];
            double gain = gain(z, at, level);
            int[] sent = sent(seed, at, blocks[b]);
            scales[b] = (float) Math.min(gain * largest * ((double) blocks[b] / sent.length), Float.MAX_VALUE);
            for (int i = 0; scales[b] != 0 && i < sent.length; i++) {
                levels[count++] = level[sent[i]];
            }
        }
        out.u32(seed).floats(scales).bytes(Bits.pack(Arrays.copyOf(levels, count), width));
    }

    /** Sets the level of each value of a block, and returns how much longer its values are than their levels. */
    private double gain(float[] z, int from, int[] level) {
        double energy = 0;
        for (int i = 0; i < level.length; i++) {
            energy += (double) z[from + i] * z[from + i];
        }
        double rms = Math.sqrt(energy / level.length);
        double inner = 0;
        for (int i = 0; i < level.length; i++) {
            double unit = z[from + i] / (rms == 0 ? 1 : rms);
            while (level[i] < centroids.length - 1 && (centroids[level[i] + 1] + centroids[level[i]]) / 2 < unit) {
                level[i]++;
            }
            inner += z[from + i] * centroids[level[i]];
        }
        return energy / (inner == 0 ? 1 : inner);
    }

    @Override
    public float[] decode(Reader reader, int count) {
        if (count == 0) {
            return new float[0];
        }
        long seed = reader.u32();
        int[] blocks = Rotation.blocks(count);
        float[] scales = reader.finite(blocks.length);
        int live = 0;
        for (int b = 0; b < blocks.length; b++) {
            live += scales[b] != 0 ? share(blocks[b]) : 0;
        }
        long[] levels = Bits.read(reader, live, width);
        float largest = largest(scales);
        largest = largest == 0 ? 1 : largest;
        Rotation rotation = new Rotation(count, seed);
        float[] z = new float[rotation.size()];
        for (int b = 0, at = 0, n = 0; b < blocks.length; at += blocks[b++]) {
            int[] sent = scales[b] != 0 ? sent(seed, at, blocks[b]) : new int[0];
            scales[b] /= largest; // so that the rotation back cannot overflow on the way to a value that fits
            for (int place : sent) {
                z[at + place] = (float) (centroids[(int) levels[n++]] * scales[b]);
            }
        }
        rotation.unrotate(z);
        float[] out = new float[count];
        for (int i = 0; i < count; i++) {
            out[i] = Quantizer.clipped(z[i] * (double) largest);
        }
        return out;
    }

    @Override
    public long maxBytes(long count) {
        int[] blocks = Rotation.blocks(Math.toIntExact(count));
        long sent = 0;
        for (int length : blocks) {
            sent += share(length);
        }
        return 4 + 4L * blocks.length + (sent * width + 7) / 8;
    }

    private int share(int length) {
        return bits >= 1 ? length : (int) Math.max(1, Math.rint(bits * length));
    }

    /** Returns which values of a block travel, rising: those with the smallest draws, no two of which are equal. */
    private int[] sent(long seed, int at, int length) {
        int[] out = new int[share(length)];
        long[] draws = new long[length];
        for (int i = 0; out.length < length && i < length; i++) {
            draws[i] = Hashes.stream(seed ^ SAMPLE, at + i) ^ Long.MIN_VALUE; // in the order of unsigned numbers
        }
        long[] sorted = draws.clone();
        Arrays.sort(sorted);
        long bar = sorted[out.length - 1];
        for (int i = 0, count = 0; i < length; i++) {
            if (draws[i] <= bar) {
                out[count++] = i;
            }
        }
        return out;
    }

    private static float largest(float[] values) {
        float largest = 0;
        for (float value : values) {
            largest = Math.max(largest, Math.abs(value));
        }
        return largest;
    }
}
