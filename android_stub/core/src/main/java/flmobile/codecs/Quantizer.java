package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.WireException;
import flmobile.core.Writer;

/** Turns values into bytes, tensor by tensor: the quantize stage of a chain. Layouts are in the Python files. */
interface Quantizer {
    void encode(float[] values, Philox rng, Writer out);

    /** Returns so many finite values. */
    float[] decode(Reader reader, int count);

    /** Returns the most bytes that so many values take. */
    long maxBytes(long count);

    /** Raw float32. */
    final class Raw implements Quantizer {
        @Override
        public void encode(float[] values, Philox rng, Writer out) {
            out.floats(values);
        }

        @Override
        public float[] decode(Reader reader, int count) {
            return reader.floats(count);
        }

        @Override
        public long maxBytes(long count) {
            return 4 * count;
        }
    }

    /** IEEE half precision, rounded to nearest even; saturates at ±65,504. */
    final class Half implements Quantizer {
        @Override
        public void encode(float[] values, Philox rng, Writer out) {
            for (float value : values) {
                write(Math.min(Math.max(value, -65504f), 65504f), out);
            }
        }

        @Override
        public float[] decode(Reader reader, int count) {
            int from = reader.take(2L * count);
            byte[] data = reader.data();
            float[] out = new float[count];
            for (int i = 0; i < count; i++) {
                int half = data[from + 2 * i] & 0xFF | (data[from + 2 * i + 1] & 0xFF) << 8;
                int exponent = half >> 10 & 31;
                if (exponent == 31) {
                    throw new WireException("value", "NaN or Inf among " + count + " float16 values");
                }
                int mantissa = half & 1023;
                float size = exponent == 0 ? mantissa * 0x1p-24f : Math.scalb(1024f + mantissa, exponent - 25);
                out[i] = half >> 15 != 0 ? -size : size;
            }
            return out;
        }

        @Override
        public long maxBytes(long count) {
            return 2 * count;
        }

        /** Writes a value of at most 65,504. */
        void write(double value, Writer out) {
            int sign = Double.doubleToRawLongBits(value) < 0 ? 1 << 15 : 0;
            double size = Math.abs(value);
            int exponent = Math.max(Math.getExponent(size), -14);
            long units = (long) Math.rint(Math.scalb(size, 10 - exponent)); // in units of the last place
            int half = sign | (int) (units + ((long) exponent + 14 << 10));
            out.u8(half).u8(half >> 8);
        }
    }

    /** A uniform grid of 2^bits levels over the range of the tensor, on which 0 is a point from 2 bits on. */
    final class Uniform implements Quantizer {
        private final int bits;
        private final boolean nearest;

        Uniform(int bits, boolean nearest) {
            this.bits = bits;
            this.nearest = nearest;
        }

        @Override
        public void encode(float[] values, Philox rng, Writer out) {
            if (values.length == 0) {
                return;
            }
            float lo = 0;
            float hi = 0;
            for (float value : values) {
                lo = value < lo ? value : lo;
                hi = value > hi ? value : hi;
            }
            double step = step(lo, hi);
            double zero = zero(lo, step);
            float[] up = nearest ? null : rng.uniform(values.length);
            long[] levels = new long[values.length];
            for (int i = 0; step != 0 && i < values.length; i++) {
                double level = Math.floor(values[i] / step + ((nearest ? 0.5 : up[i]) - zero));
                levels[i] = (long) Math.min(Math.max(level, 0), (1 << bits) - 1);
            }
            out.f32(lo).f32(hi).bytes(Bits.pack(levels, bits));
        }

        @Override
        public float[] decode(Reader reader, int count) {
            if (count == 0) {
                return new float[0];
            }
            float[] range = reader.finite(2);
            if (!(range[0] <= 0 && range[1] >= 0)) {
                throw new WireException("value", "the grid's range [" + range[0] + ", " + range[1] + "] must hold 0");
            }
            double step = step(range[0], range[1]);
            double zero = zero(range[0], step);
            float[] table = new float[1 << bits];
            for (int level = 0; level < table.length; level++) {
                table[level] = clipped((level + zero) * step);
            }
            long[] levels = Bits.read(reader, count, bits);
            float[] out = new float[count];
            for (int i = 0; i < count; i++) {
                out[i] = table[(int) levels[i]];
            }
            return out;
        }

        @Override
        public long maxBytes(long count) {
            return 8 + (count * bits + 7) / 8;
        }

        private double step(double lo, double hi) {
            return bits == 1 ? hi - lo : (hi - lo) / ((1 << bits) - 2);
        }

        /** Returns the number of steps from 0 down to level 0, a whole number from 2 bits on. */
        private double zero(double lo, double step) {
            return step == 0 ? 0 : bits == 1 ? lo / step : Math.floor(lo / step);
        }
    }

    /** One bit and the mean magnitude. */
    final class Sign implements Quantizer {
        @Override
        public void encode(float[] values, Philox rng, Writer out) {
            if (values.length == 0) {
                return;
            }
            double sum = 0;
            for (float value : values) {
                sum += Math.abs(value);
            }
            out.f32((float) (sum / values.length)).bytes(Bits.packFlags(negative(values, null)));
        }

        @Override
        public float[] decode(Reader reader, int count) {
            float[] out = new float[count];
            if (count > 0) {
                float scale = reader.finite(1)[0];
                boolean[] negative = Bits.readFlags(reader, count);
                for (int i = 0; i < count; i++) {
                    out[i] = negative[i] ? -scale : scale;
                }
            }
            return out;
        }

        @Override
        public long maxBytes(long count) {
            return 4 + (count + 7) / 8;
        }
    }

    /** Stochastic −1, 0, +1 times the largest magnitude. */
    final class TernGrad implements Quantizer {
        @Override
        public void encode(float[] values, Philox rng, Writer out) {
            if (values.length == 0) {
                return;
            }
            float scale = 0;
            for (float value : values) {
                scale = Math.max(scale, Math.abs(value));
            }
            float[] draws = rng.uniform(values.length);
            int[] keep = new int[values.length];
            int count = 0;
            for (int i = 0; i < values.length; i++) {
                if (draws[i] * (double) scale < Math.abs(values[i])) {
                    keep[count++] = i;
                }
            }
            keep = java.util.Arrays.copyOf(keep, count);
            out.f32(scale);
            Bits.writePositions(out, keep, values.length);
            out.bytes(Bits.packFlags(negative(values, keep)));
        }

        @Override
        public float[] decode(Reader reader, int count) {
            float[] out = new float[count];
            if (count > 0) {
                float scale = reader.finite(1)[0];
                int[] keep = Bits.readPositions(reader, count);
                boolean[] negative = Bits.readFlags(reader, keep.length);
                for (int i = 0; i < keep.length; i++) {
                    out[keep[i]] = negative[i] ? -scale : scale;
                }
            }
            return out;
        }

        @Override
        public long maxBytes(long count) {
            return 4 + Bits.positionBytes(count) + (count + 7) / 8;
        }
    }

    /** Returns a value in float32's range. */
    static float clipped(double value) {
        return (float) Math.min(Math.max(value, -Float.MAX_VALUE), Float.MAX_VALUE);
    }

    /** Returns whether each value, or each at the places given, is below 0. */
    static boolean[] negative(float[] values, int[] at) {
        boolean[] out = new boolean[at == null ? values.length : at.length];
        for (int i = 0; i < out.length; i++) {
            out[i] = values[at == null ? i : at[i]] < 0;
        }
        return out;
    }
}
