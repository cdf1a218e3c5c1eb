package flmobile.wire;

import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import java.util.Arrays;
import java.util.Map;

/** Which weights stay zero in a round, computed alike by both ends; see {@code fl_mobile/wire/pruning_mask.py}. */
public final class Pruning {
    private final double sparsity;
    private final long beginRound;
    private final long endRound;
    private final boolean constant;
    private final int zeroRun;
    private final long smallestKernel;

    private Pruning(Map<String, Object> told) {
        sparsity = Json.number(told, "sparsity");
        beginRound = Json.whole(told, "begin_round", 0, Long.MAX_VALUE);
        endRound = Json.whole(told, "end_round", beginRound, Long.MAX_VALUE);
        constant = Json.text(told, "schedule").equals("constant");
        zeroRun = (int) Json.whole(told, "zero_run", 1, Integer.MAX_VALUE);
        smallestKernel = Json.whole(told, "smallest_kernel", 1, Long.MAX_VALUE);
    }

    /** Reads the plan out of the terms. */
    public static Pruning read(Map<String, Object> told) {
        return new Pruning(told);
    }

    /** Returns the share of zeros in a round; it never falls. */
    double sparsityAt(long round) {
        if (round < beginRound) {
            return 0;
        }
        if (constant || round >= endRound) {
            return sparsity;
        }
        double done = (double) (round - beginRound) / (endRound - beginRound);
        return sparsity * (1.0 - Math.pow(1.0 - done, 3));
    }

    /** Returns for each tensor how many inputs of one output are pruned together, 0 where nothing is. */
    int[] zeroRuns(Spec spec) {
        int[] runs = new int[spec.count()];
        for (int t = 0; t < runs.length; t++) {
            TensorSpec tensor = spec.tensors().get(t);
            if (tensor.trainable && tensor.rank() >= 2 && tensor.size >= smallestKernel) {
                runs[t] = tensor.rank() == 2 && tensor.length(0) % zeroRun == 0 ? zeroRun : 1;
            }
        }
        return runs;
    }

    /** Returns what lives in a round, {@code boolean[spec.size()]}; null where nothing is pruned. */
    public boolean[] masks(float[] weights, Spec spec, long round) {
        double share = sparsityAt(round);
        if (share == 0) {
            return null;
        }
        boolean[] lives = new boolean[spec.size()];
        Arrays.fill(lives, true);
        int[] runs = zeroRuns(spec);
        for (int t = 0; t < runs.length; t++) {
            if (runs[t] > 0 && spec.tensors().get(t).size > 0) {
                prune(weights, lives, spec.offset(t), spec.tensors().get(t), runs[t], share);
            }
        }
        return lives;
    }

    /** Marks the runs of least magnitude, ties by position. */
    private static void prune(float[] weights, boolean[] lives, int at, TensorSpec tensor, int run, double share) {
        int rest = tensor.size / tensor.length(0);
        double[] magnitude = new double[tensor.size / run];
        for (int i = 0; i < tensor.size; i++) {
            magnitude[runOf(i, rest, run)] += Math.abs((double) weights[at + i]);
        }
        int dying = (int) Math.rint(share * magnitude.length);
        if (dying == 0) {
            return;
        }
        double[] sorted = magnitude.clone();
        Arrays.sort(sorted);
        double bar = sorted[dying - 1];
        int ties = dying;
        for (double each : magnitude) {
            ties -= each < bar ? 1 : 0;
        }
        boolean[] dead = new boolean[magnitude.length];
        for (int i = 0; i < dead.length; i++) {
            dead[i] = magnitude[i] < bar || magnitude[i] == bar && ties-- > 0;
        }
        for (int i = 0; i < tensor.size; i++) {
            lives[at + i] = !dead[runOf(i, rest, run)];
        }
    }

    /** Returns the run of a value: {@code run} values along the first axis are one. */
    static int runOf(int value, int rest, int run) {
        return value / rest / run * rest + value % rest;
    }

    /** Sets values to zero where nothing lives. */
    public static void apply(boolean[] lives, float[] values) {
        for (int i = 0; lives != null && i < values.length; i++) {
            if (!lives[i]) {
                values[i] = 0;
            }
        }
    }
}
