package flmobile.codecs;

import java.util.Arrays;

/** Chooses which values of a tensor travel: the prune stage of a chain. */
interface Pruner {
    /** Returns the rising positions of what is kept. */
    int[] keep(float[] values);

    /** Returns a pruner that keeps a fraction of largest magnitude, at least one; ties go to the lower index. */
    static Pruner topK(double fraction) {
        return values -> largest(values, wanted(fraction, values.length));
    }

    /** Returns a pruner that keeps what is larger than a value. */
    static Pruner threshold(double value) {
        return values -> above(values, value, false);
    }

    /** Returns a pruner that keeps about a fraction, by a threshold read off an even sample (Lin et al., ICLR 2018). */
    static Pruner sampled(double fraction) {
        return values -> {
            int k = wanted(fraction, values.length);
            int stride = Math.max(1, values.length / Math.max(256, values.length / 100));
            float[] sample = new float[(values.length + stride - 1) / stride];
            if (sample.length == 0) {
                return new int[0];
            }
            for (int i = 0; i < sample.length; i++) {
                sample[i] = Math.abs(values[i * stride]);
            }
            Arrays.sort(sample);
            int[] keep = above(values, sample[sample.length - wanted(fraction, sample.length)], true);
            return keep.length > 2 * k ? largest(values, k) : keep;
        };
    }

    /** Returns {@code round(fraction·n)}, half to even, at least 1 and at most n. */
    static int wanted(double fraction, int values) {
        return Math.min(values, Math.max(1, (int) Math.rint(fraction * values)));
    }

    /** Returns where magnitudes are above a bar, or at it. */
    static int[] above(float[] values, double bar, boolean at) {
        int[] keep = new int[values.length];
        int count = 0;
        for (int i = 0; i < values.length; i++) {
            float size = Math.abs(values[i]);
            if (at ? size >= bar : size > bar) {
                keep[count++] = i;
            }
        }
        return Arrays.copyOf(keep, count);
    }

    /** Returns where the {@code k} largest magnitudes are. */
    static int[] largest(float[] values, int k) {
        if (k == 0) {
            return new int[0];
        }
        float[] sorted = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            sorted[i] = Math.abs(values[i]);
        }
        Arrays.sort(sorted);
        float bar = sorted[values.length - k];
        int ties = k - above(values, bar, false).length;
        int[] keep = new int[k];
        int count = 0;
        for (int i = 0; i < values.length; i++) {
            float size = Math.abs(values[i]);
            if (size > bar || size == bar && ties-- > 0) {
                keep[count++] = i;
            }
        }
        return keep;
    }
}
