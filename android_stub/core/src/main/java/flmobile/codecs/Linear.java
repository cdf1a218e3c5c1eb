package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.util.Arrays;

/** Fixed-width levels that add up before anyone decodes them; see {@code fl_mobile/codecs/linear.py}. */
final class Linear implements Codec {
    private final String name;
    private final double clip;
    private final int bits;
    private final int devices;
    private final double keep;
    private final long seed;

    Linear(String name, double clip, int bits, int devices, double keep, long seed) {
        this.name = name;
        this.clip = clip;
        this.bits = bits;
        this.devices = devices;
        this.keep = keep;
        this.seed = seed;
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public byte[] encode(float[] values, Spec spec, Philox rng) {
        int[] at = positions(values.length);
        float[] up = rng.uniform(at.length);
        long[] levels = new long[at.length];
        for (int i = 0; i < at.length; i++) {
            double sent = Math.min(Math.max(values[at[i]], -clip), clip);
            levels[i] = Math.min((long) Math.floor(sent / step() + offset() + up[i]), (1L << bits) - 1);
        }
        return Bits.pack(levels, width());
    }

    @Override
    public float[] decode(Reader payload, Spec spec) {
        int[] at = positions(spec.size());
        long[] levels = Bits.readExactly(payload, at.length, width());
        double scale = step() * ((double) spec.size() / Math.max(at.length, 1));
        float[] out = new float[spec.size()];
        for (int i = 0; i < at.length; i++) {
            if (levels[i] > (1L << bits) - 1) {
                throw new WireException("value", "linear: level " + levels[i] + " is above the highest of one client");
            }
            out[at[i]] = Quantizer.clipped((levels[i] - offset()) * scale);
        }
        return out;
    }

    private int width() {
        return 64 - Long.numberOfLeadingZeros(devices * ((1L << bits) - 1));
    }

    private double step() {
        return bits == 1 ? 2 * clip : clip / ((1 << bits - 1) - 1);
    }

    private double offset() {
        return bits == 1 ? 0.5 : (1 << bits - 1) - 1;
    }

    /** Returns the coordinates of the round's mask: those with the smallest draws, ties to the lower index. */
    private int[] positions(int size) {
        int count = keep == 1 ? size : Pruner.wanted(keep, size);
        int[] out = new int[count];
        if (count == size) {
            for (int i = 0; i < size; i++) {
                out[i] = i;
            }
            return out;
        }
        Philox rng = new Philox(seed);
        long[] draws = new long[size];
        for (int i = 0; i < size; i++) {
            draws[i] = rng.next() ^ Long.MIN_VALUE; // so that signed comparisons are unsigned ones
        }
        long[] sorted = draws.clone();
        Arrays.sort(sorted);
        long bar = sorted[count - 1];
        int ties = count;
        for (long draw : draws) {
            ties -= draw < bar ? 1 : 0;
        }
        for (int i = 0, n = 0; i < size; i++) {
            if (draws[i] < bar || draws[i] == bar && ties-- > 0) {
                out[n++] = i;
            }
        }
        return out;
    }
}
