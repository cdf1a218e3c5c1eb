package flmobile.codecs.ecsq;

import flmobile.codecs.Codec;
import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.WireException;
import flmobile.core.Writer;

/**
 * Entropy-coded scalar quantization with row, column and sign contexts; the format is in {@code
 * fl_mobile/codecs/ecsq/__init__.py}. It decodes all of it. It encodes without the low-rank part, whose float32 matrix
 * products no two machines compute alike: the form that both ends compute alike is {@code ecsq:rank=0}.
 */
public final class Ecsq implements Codec {
    private static final int ZERO = 0;
    private static final int RAW = 1;
    private static final int CODED = 2;
    private static final double CLEARLY = 0.9;

    /** How values become levels. */
    public enum Rounds {
        STOCHASTIC,
        RDO,
        NEAREST
    }

    private final String name;
    private final double step;
    private final boolean absolute;
    private final int examples;
    private final Rounds rounding;

    /**
     * @param name as the server writes it
     * @param step Δ as a multiple of the update's root mean square, or itself if {@code absolute}
     * @param examples how many examples a client has that takes this step, another's is in inverse proportion to its
     *     own; 0: the step is everyone's
     */
    public Ecsq(String name, double step, boolean absolute, int examples, Rounds rounding) {
        this.name = name;
        this.step = step;
        this.absolute = absolute;
        this.examples = examples;
        this.rounding = rounding;
    }

    /** Returns the codec of whole multiples of a step, without loss. */
    public static Ecsq lossless(double step) {
        return new Ecsq("ecsq", step, true, 0, Rounds.NEAREST);
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public String wireName() {
        return "ecsq";
    }

    @Override
    public Codec forExamples(long own) {
        if (examples == 0) {
            return this;
        }
        return new Ecsq(name, step * examples / Math.max(own, 1), absolute, 0, rounding);
    }

    @Override
    public byte[] encode(float[] values, Spec spec, Philox rng) {
        double delta = delta(values);
        if (delta == 0) {
            return new byte[] {ZERO};
        }
        Shapes shapes = Shapes.of(spec);
        byte[] payload = coded(values, shapes, delta, rng);
        while (payload == null && rounding == Rounds.RDO && !absolute) { // nothing sent is nothing learnt
            delta /= 2;
            payload = coded(values, shapes, delta, rng);
        }
        if (payload == null) {
            return new byte[] {ZERO};
        }
        return payload.length < 1 + 4L * values.length ? payload : new Writer().u8(RAW).floats(values).toBytes();
    }

    @Override
    public float[] decode(Reader payload, Spec spec) {
        int form = payload.u8();
        float[] values;
        if (form == RAW) {
            values = payload.finite(spec.size());
        } else if (form == CODED) {
            values = decodeLevels(payload, Shapes.of(spec));
        } else if (form == ZERO) {
            values = new float[spec.size()];
        } else {
            throw new WireException("value", "ecsq: unknown form " + form + ", expected 0, 1 or 2");
        }
        payload.end();
        return values;
    }

    /** Returns Δ as a float32 number, 0 if all values are; no level exceeds 2^20 with it. */
    private double delta(float[] values) {
        double square = 0;
        double largest = 0;
        for (float value : values) {
            square += (double) value * value;
            largest = Math.max(largest, Math.abs(value));
        }
        if (square == 0) {
            return 0;
        }
        double delta = absolute ? step : leading(step * Math.sqrt(square / values.length));
        if (delta * (LevelReader.MAX_LEVEL - 1) < Math.sqrt(square)) {
            delta = Math.max(delta, largest / (LevelReader.MAX_LEVEL - 1));
        }
        return (float) Math.min(Math.max(delta, Float.MIN_VALUE), Float.MAX_VALUE);
    }

    /** Returns 12 leading bits, so that the order of a sum does not matter. */
    private static double leading(double number) {
        int exponent = Math.getExponent(number) + 1;
        return Math.scalb(Math.rint(Math.scalb(number, 12 - exponent)), exponent - 12);
    }

    /** Returns the payload with step Δ, null if every level is 0. */
    private byte[] coded(float[] values, Shapes shapes, double delta, Philox rng) {
        Levels levels;
        int[] shifts = new int[2];
        if (rounding == Rounds.STOCHASTIC) {
            levels = Rounding.stochastic(values, delta, rng);
        } else if (rounding == Rounds.NEAREST) {
            levels = Rounding.nearest(values, delta);
        } else {
            levels = Rounding.rateDistortion(values, delta, shapes);
            shifts = Rounding.meanShifts(values, levels, delta);
        }
        if (levels.count() == 0) {
            return null;
        }
        Writer out = new Writer().u8(CODED).f32((float) delta).u8(shifts[0]).u8(shifts[1]);
        return out.bytes(smallest(levels, shapes)).toBytes();
    }

    private static byte[] smallest(Levels levels, Shapes shapes) {
        Plans plans = Planner.classes(levels, shapes);
        byte[] payload = LevelWriter.write(levels, shapes, plans);
        if (!plans.any(Plans.ROW_CLASSES | Plans.COLUMN_CLASSES)
                || 8 * payload.length < CLEARLY * Planner.flatBits(levels, shapes)) {
            return payload;
        }
        byte[] flat = LevelWriter.write(levels, shapes, Planner.flat(levels, shapes));
        return flat.length < payload.length ? flat : payload;
    }

    private static float[] decodeLevels(Reader payload, Shapes shapes) {
        float delta = payload.finite(1)[0];
        int firstShift = (byte) payload.u8();
        int secondShift = (byte) payload.u8();
        if (!(delta > 0)) {
            throw new WireException("value", "ecsq: the step must be above 0, got " + delta);
        }
        int length = payload.left();
        int begin = payload.take(length);
        LevelReader read = new LevelReader(payload.data(), begin, begin + length, shapes);
        int total = shapes.values();
        double[] low = read.factors.any() ? read.factors.lowRank(read.levels, shapes, delta) : null;
        float[] values = new float[total];
        for (int i = 0; low != null && i < total; i++) {
            values[i] = clipped(low[i]);
        }
        for (int i = 0; i < read.levels.count(); i++) {
            int at = read.levels.positions[i];
            if (at < total) {
                int magnitude = read.levels.magnitudes[i];
                long size = 256L * magnitude + (magnitude == 1 ? firstShift : secondShift);
                double value = (read.levels.negative[i] ? -size : size) * ((double) delta / 256);
                values[at] = clipped(low == null ? value : value + low[at]);
            }
        }
        return values;
    }

    private static float clipped(double value) {
        return (float) Math.min(Math.max(value, -Float.MAX_VALUE), Float.MAX_VALUE);
    }
}
