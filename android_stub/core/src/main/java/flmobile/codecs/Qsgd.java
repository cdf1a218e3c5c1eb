package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.WireException;
import flmobile.core.Writer;

/** Stochastic levels of the norm of buckets of 512 values, most of them 0 (Alistarh et al., NeurIPS 2017). */
final class Qsgd implements Quantizer {
    private static final int BUCKET = 512;
    private final int levels;
    private final int most;

    Qsgd(int levels) {
        this.levels = levels;
        most = 31 - Integer.numberOfLeadingZeros(levels);
    }

    @Override
    public void encode(float[] values, Philox rng, Writer out) {
        if (values.length == 0) {
            return;
        }
        float[] rms = new float[(values.length + BUCKET - 1) / BUCKET];
        for (int bucket = 0; bucket < rms.length; bucket++) {
            int from = bucket * BUCKET;
            int length = Math.min(BUCKET, values.length - from);
            double square = 0;
            for (int i = from; i < from + length; i++) {
                square += (double) values[i] * values[i];
            }
            double exact = Math.sqrt(square / length);
            rms[bucket] = (float) Math.min(exact, Float.MAX_VALUE); // in JavaScript only the array makes a float32 of it
            if (rms[bucket] < exact && rms[bucket] < Float.MAX_VALUE) {
                rms[bucket] = Math.nextUp(rms[bucket]);
            }
        }
        float[] draws = rng.uniform(values.length);
        int[] keep = new int[values.length];
        long[] drawn = new long[values.length];
        int count = 0;
        for (int i = 0; i < values.length; i++) {
            double unit = unit(rms, i, values.length);
            double level = Math.floor(Math.abs((double) values[i]) / (unit == 0 ? 1.0 : unit) + draws[i]);
            if (level > 0) {
                drawn[count] = (long) Math.min(level, levels);
                keep[count++] = i;
            }
        }
        keep = java.util.Arrays.copyOf(keep, count);
        out.floats(rms);
        Bits.writePositions(out, keep, values.length);
        out.bytes(Bits.packFlags(Quantizer.negative(values, keep)));
        if (levels > 1) {
            writeGamma(out, java.util.Arrays.copyOf(drawn, count));
        }
    }

    private static void writeGamma(Writer out, long[] drawn) {
        long[] widths = new long[drawn.length];
        int widest = 0;
        for (int i = 0; i < drawn.length; i++) {
            widths[i] = 63 - Long.numberOfLeadingZeros(drawn[i]);
            widest = Math.max(widest, (int) widths[i]);
        }
        out.bytes(Bits.unary(widths));
        for (int width = 1; width <= widest; width++) {
            long[] low = new long[drawn.length];
            int count = 0;
            for (int i = 0; i < drawn.length; i++) {
                if (widths[i] == width) {
                    low[count++] = drawn[i] - (1L << width);
                }
            }
            out.bytes(Bits.pack(java.util.Arrays.copyOf(low, count), width));
        }
    }

    @Override
    public float[] decode(Reader reader, int count) {
        float[] out = new float[count];
        if (count == 0) {
            return out;
        }
        float[] rms = reader.finite((count + BUCKET - 1) / BUCKET);
        int[] keep = Bits.readPositions(reader, count);
        boolean[] negative = Bits.readFlags(reader, keep.length);
        long[] drawn = new long[keep.length];
        java.util.Arrays.fill(drawn, 1);
        if (levels > 1) {
            drawn = readGamma(reader, keep.length);
        }
        for (int i = 0; i < keep.length; i++) {
            double unit = unit(rms, keep[i], count);
            out[keep[i]] = Quantizer.clipped((negative[i] ? -drawn[i] : drawn[i]) * unit);
        }
        return out;
    }

    private long[] readGamma(Reader reader, int count) {
        long[] widths = Bits.readUnary(reader, count, (most + 1L) * count);
        long[] drawn = new long[count];
        for (int i = 0; i < count; i++) {
            if (widths[i] > most) {
                throw new WireException("value", "a level has too many bits, " + levels + " is the highest");
            }
            drawn[i] = 1L << widths[i];
        }
        for (int width = 1; width <= most; width++) {
            int chosen = 0;
            for (long each : widths) {
                chosen += each == width ? 1 : 0;
            }
            long[] low = Bits.read(reader, chosen, width);
            for (int i = 0, n = 0; i < count; i++) {
                if (widths[i] == width) {
                    drawn[i] += low[n++];
                }
            }
        }
        for (long each : drawn) {
            if (each > levels) {
                throw new WireException("value", "level " + each + " is above the highest, " + levels);
            }
        }
        return drawn;
    }

    /** Returns what one level is worth at a place. */
    private double unit(float[] rms, int at, int count) {
        int bucket = at / BUCKET;
        int length = Math.min(BUCKET, count - bucket * BUCKET);
        return (double) rms[bucket] * Math.sqrt(length) / levels;
    }

    @Override
    public long maxBytes(long count) {
        int bits = most + 1;
        return 4 * (count / BUCKET + 1) + Bits.positionBytes(count) + (count + 7) / 8 + (2 * count * bits + 7) / 8 + bits;
    }
}
