package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.Writer;
import java.math.BigDecimal;

/** A random projection that all clients of a round share; see {@code fl_mobile/codecs/sketch/codec.py}. */
public final class Sketch implements Codec {
    private static final double[] EXCESS = {0, 0.571, 0.133, 0.0358, 0.0096};
    private final String name;
    private final int k;
    private final int bits;
    private final int width;
    private final double step;
    private final long seed;

    Sketch(String name, int k, int bits, int width, double step, long seed) {
        this.name = name;
        this.k = k;
        this.bits = bits;
        this.width = width;
        this.step = step;
        this.seed = seed;
    }

    @Override
    public String name() {
        return name;
    }

    /** Returns how many numbers a packet holds. */
    public int numbers() {
        return k;
    }

    /** Returns the key of a round's projection. */
    public long key(long round) {
        return Projection.roundKey(seed, round);
    }

    @Override
    public double normGain(int values) {
        double excess = width > 0 ? 0 : EXCESS[bits];
        return 1.25 * Math.sqrt((1 + excess) * ((values + (long) k - 1) / k));
    }

    @Override
    public Codec forRound(long round) {
        return new Sketch(name, k, bits, width, step, key(round));
    }

    @Override
    public byte[] encode(float[] values, Spec spec, Philox rng) {
        if (values.length == 0) {
            return new byte[0];
        }
        Projection projection = new Projection(seed, values.length, k);
        double[] numbers = projection.sums(values);
        projection.rotate(numbers);
        if (width > 0) {
            float[] up = rng.uniform(k);
            long[] fields = new long[k];
            for (int i = 0; i < k; i++) {
                fields[i] = (long) Math.min(Math.max(Math.floor(numbers[i] / step + up[i]), -0x1p62), 0x1p62);
            }
            return Bits.pack(fields, width);
        }
        Writer scales = new Writer();
        long[] levels = new long[k];
        int at = 0;
        int count = 0;
        for (int length : Projection.blocks(k)) {
            float scale = quantize(numbers, at, length, levels, count);
            scales.f32(scale);
            count += scale != 0 ? length : 0;
            at += length;
        }
        return scales.bytes(Bits.pack(java.util.Arrays.copyOf(levels, count), bits)).toBytes();
    }

    /** Sets the levels of a block and returns its scale; sums are exact, so that every machine gets the same bits. */
    private float quantize(double[] numbers, int from, int length, long[] levels, int at) {
        double[] centroids = Eden.centroids(bits);
        double[] products = new double[length];
        for (int i = 0; i < length; i++) {
            products[i] = numbers[from + i] * numbers[from + i];
        }
        double energy = exactSum(products);
        if (energy == 0) {
            return 0;
        }
        double rms = Math.sqrt(energy / length);
        for (int i = 0; i < length; i++) {
            double unit = numbers[from + i] / rms;
            int level = 0;
            while (level < centroids.length - 1 && (centroids[level + 1] + centroids[level]) / 2 <= unit) {
                level++;
            }
            levels[at + i] = level;
            products[i] = numbers[from + i] * centroids[level];
        }
        return (float) Math.min(energy / exactSum(products), Float.MAX_VALUE);
    }

    private static double exactSum(double[] numbers) {
        BigDecimal sum = BigDecimal.ZERO;
        for (double number : numbers) {
            sum = sum.add(new BigDecimal(number));
        }
        return sum.doubleValue();
    }

    @Override
    public float[] decode(Reader payload, Spec spec) {
        if (spec.size() == 0) {
            payload.end();
            return new float[0];
        }
        double[] numbers = new double[k];
        if (width > 0) {
            long[] fields = Bits.readExactly(payload, k, width);
            long half = 1L << width - 1;
            for (int i = 0; i < k; i++) {
                numbers[i] = (fields[i] >= half ? fields[i] - 2 * half : fields[i]) * step;
            }
        } else {
            readPlain(payload, numbers);
        }
        Projection projection = new Projection(seed, spec.size(), k);
        projection.unrotate(numbers);
        return projection.spread(numbers);
    }

    private void readPlain(Reader payload, double[] numbers) {
        int[] blocks = Projection.blocks(k);
        float[] scales = payload.finite(blocks.length);
        int live = 0;
        for (int b = 0; b < blocks.length; b++) {
            live += scales[b] != 0 ? blocks[b] : 0;
        }
        long[] levels = Bits.read(payload, live, bits);
        payload.end();
        double[] centroids = Eden.centroids(bits);
        for (int b = 0, at = 0, n = 0; b < blocks.length; b++) {
            for (int end = at + blocks[b]; at < end; at++) {
                numbers[at] = scales[b] != 0 ? centroids[(int) levels[n++]] * scales[b] : 0;
            }
        }
    }
}
