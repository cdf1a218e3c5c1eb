package flmobile.codecs.ecsq;

import static flmobile.codecs.ecsq.Plans.CONTEXTS;

import flmobile.core.Philox;
import java.util.Arrays;

/** From values to levels: unbiased stochastic rounding, and the biased rounding with the best rate for its error. */
final class Rounding {
    private static final double LAMBDA = 0.1;
    private static final int PASSES = 2;
    private static final int TABLE = 16;

    private Rounding() {}

    /** Returns {@code ⌊|x|/Δ + U⌋} with the sign of x: eight bits of U first, 24 more only where those leave it open. */
    static Levels stochastic(float[] values, double step, Philox rng) {
        int[] positions = new int[values.length];
        byte[] coarse = new byte[values.length];
        int count = 0;
        double scale = 256.0 / step;
        for (int i = 0; i < values.length; ) {
            long draw = rng.next();
            for (int end = Math.min(i + 8, values.length); i < end; i++, draw >>>= 8) {
                int low = (int) draw & 0xFF;
                if (Math.abs((double) values[i]) * scale > low) {
                    coarse[count] = (byte) low;
                    positions[count++] = i;
                }
            }
        }
        float[] fine = rng.uniform(count);
        int[] magnitudes = new int[count];
        for (int i = 0; i < count; i++) {
            double exact = Math.abs((double) values[positions[i]]) / step;
            double whole = Math.floor(exact);
            double chance = ((coarse[i] & 0xFF) + (double) fine[i]) / 256;
            magnitudes[i] = (int) whole + (chance < exact - whole ? 1 : 0);
        }
        return levels(values, positions, magnitudes, count);
    }

    /** Returns {@code rint(|x|/Δ)} with the sign of x: exact for values that are multiples of Δ. */
    static Levels nearest(float[] values, double step) {
        int[] positions = new int[values.length];
        int[] magnitudes = new int[values.length];
        int count = 0;
        float least = 0.499f * (float) step;
        for (int i = 0; i < values.length; i++) {
            if (Math.abs(values[i]) >= least) {
                positions[count] = i;
                magnitudes[count++] = (int) Math.rint(Math.abs((double) values[i]) / step);
            }
        }
        return levels(values, positions, magnitudes, count);
    }

    /** Returns levels that minimise squared error + λ·bits, one value at a time given everyone's statistics. */
    static Levels rateDistortion(float[] values, double step, Shapes shapes) {
        int[] positions = new int[values.length];
        double[] exact = new double[values.length];
        int[] chosen = new int[values.length];
        int count = 0;
        for (int i = 0; i < values.length; i++) {
            double t = (double) Math.abs(values[i]) / step;
            if (t > 0.5) {
                positions[count] = i;
                exact[count] = t;
                chosen[count++] = (int) Math.floor(t + 0.35);
            }
        }
        positions = Arrays.copyOf(positions, count);
        for (int pass = 0; pass < PASSES; pass++) {
            Levels kept = levels(values, positions, chosen, count);
            if (kept.count() == 0) {
                break;
            }
            Plans plans = pass > 0 ? Planner.classes(kept, shapes) : Planner.flat(kept, shapes);
            reconsider(exact, positions, chosen, plans, new Layout(shapes, plans));
        }
        return levels(values, positions, chosen, count);
    }

    /** Chooses anew, by the statistics of the choice so far. */
    private static void reconsider(double[] exact, int[] positions, int[] chosen, Plans plans, Layout layout) {
        int count = positions.length;
        int[] block = new int[count];
        layout.findBlocks(positions, block, new int[count]);
        int[] edges = new int[CONTEXTS];
        for (int k = 0, sum = 0; k < CONTEXTS; k++) {
            sum += layout.slots[k];
            edges[k] = sum;
        }
        int[] context = new int[count];
        double[][] counts = new double[CONTEXTS][TABLE];
        for (double[] row : counts) {
            Arrays.fill(row, 0.02); // what never happened is dear, not impossible
        }
        for (int i = 0; i < count; i++) {
            if (block[i] >= 0) {
                while (context[i] < CONTEXTS && edges[context[i]] <= layout.start[block[i]]) {
                    context[i]++;
                }
            }
            if (chosen[i] > 0) {
                counts[context[i]][Math.min(chosen[i], TABLE - 1)] += 1;
            }
        }
        double[][] bits = new double[CONTEXTS][TABLE];
        double dearest = 0;
        for (int k = 0; k < CONTEXTS; k++) {
            double marked = 0;
            for (int v = 1; v < TABLE; v++) {
                marked += counts[k][v];
            }
            counts[k][0] = Math.max(layout.slots[k] - (marked - 0.02 * (TABLE - 1)), 0) + 0.02;
            double all = 0;
            for (double each : counts[k]) {
                all += each;
            }
            for (int v = 0; v < TABLE; v++) {
                bits[k][v] = Log2.of(all) - Log2.of(counts[k][v]) + (v > 0 ? 1 : 0); // 1 is the sign
                dearest = Math.max(dearest, bits[k][v]);
            }
        }
        Arrays.fill(bits[0], dearest); // where a whole row is silent it stays so
        bits[0][0] = 0;
        for (int i = 0; i < count; i++) {
            int low = (int) Math.floor(exact[i]);
            double best = Double.POSITIVE_INFINITY;
            for (int n = 0; n < 3; n++) {
                int option = n == 0 ? 0 : low + n - 1;
                double error = option - exact[i];
                double cost = error * error + LAMBDA * bits[context[i]][Math.min(option, TABLE - 1)];
                if (cost < best) {
                    best = cost;
                    chosen[i] = option;
                }
            }
        }
    }

    /** Returns where the values of level 1, and of all above, lie on average, in 256ths of a step from the level. */
    static int[] meanShifts(float[] values, Levels levels, double step) {
        double[] sum = new double[2];
        int[] count = new int[2];
        for (int i = 0; i < levels.count(); i++) {
            int which = levels.magnitudes[i] == 1 ? 0 : 1;
            sum[which] += Math.abs((double) values[levels.positions[i]]) / step - levels.magnitudes[i];
            count[which]++;
        }
        int[] shifts = new int[2];
        for (int which = 0; which < 2; which++) {
            double mean = count[which] > 0 ? sum[which] / count[which] : 0;
            shifts[which] = (int) Math.min(Math.max(Math.rint(256 * mean), -127), 127);
        }
        return shifts;
    }

    /** Returns those of the first {@code count} that are not 0. */
    private static Levels levels(float[] values, int[] positions, int[] magnitudes, int count) {
        int kept = 0;
        for (int i = 0; i < count; i++) {
            kept += magnitudes[i] > 0 ? 1 : 0;
        }
        int[] at = new int[kept];
        int[] levels = new int[kept];
        boolean[] negative = new boolean[kept];
        for (int i = 0, n = 0; i < count; i++) {
            if (magnitudes[i] > 0) {
                at[n] = positions[i];
                levels[n] = magnitudes[i];
                negative[n++] = values[positions[i]] < 0;
            }
        }
        return new Levels(at, levels, negative);
    }
}
