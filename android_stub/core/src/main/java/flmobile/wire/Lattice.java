package flmobile.wire;

import flmobile.codecs.Codec;
import flmobile.codecs.ecsq.Ecsq;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Delta downloads: models are points of a lattice around the first one, {@code B_0 + Δ·n}; see {@code
 * fl_mobile/wire/lattice.py}. A point is {@code int[spec.size()]}, 0 where a tensor does not train.
 */
final class Lattice {
    /** Coordinate of a weight that is exactly zero because it was pruned. */
    static final int DEAD = Integer.MIN_VALUE;
    /** Steps that a coordinate may be away from the first model. */
    static final int FURTHEST = 1 << 19;

    private static final double TYPICAL_RMS = 0.05;
    private static final int VERSIONS_AT = 20;

    private final float[] origin;
    final Spec spec;
    final double step;
    private final int[] zeroRuns;

    /**
     * @param fineness Δ in units of the rms of the trainable first weights
     * @param zeroRuns for each tensor how many inputs die together, 0 where none can; null where none do
     */
    Lattice(float[] origin, Spec spec, double fineness, int[] zeroRuns) {
        this.origin = origin;
        this.spec = spec;
        this.zeroRuns = zeroRuns;
        double square = 0;
        long count = 0;
        for (int t = 0; t < spec.count(); t++) {
            for (int i = spec.offset(t); spec.tensors().get(t).trainable && i < spec.offset(t + 1); i++, count++) {
                square += (double) origin[i] * origin[i];
            }
        }
        double rms = count == 0 ? 0 : Math.sqrt(square / count);
        float[] rounded = {(float) (fineness * (rms == 0 ? TYPICAL_RMS : rms))}; // in JavaScript only an array does
        step = rounded[0];
    }

    /** Returns the version that a delta leads to and the one it starts from, as it says. */
    long[] versions(byte[] packet) {
        long at = VERSIONS_AT;
        if (zeroRuns != null && packet.length >= 4) {
            at += 4 + new Reader(packet).u32();
        }
        Reader reader = new Reader(packet);
        reader.take(at);
        return new long[] {reader.u32(), reader.u32()};
    }

    /** Moves a point, in place, and returns the weights there. */
    float[] unpack(byte[] packet, int[] point) {
        Reader reader = new Reader(packet);
        boolean[] deadRuns = null;
        if (zeroRuns != null) {
            byte[] told = reader.bytes((int) Math.min(reader.u32(), Integer.MAX_VALUE));
            deadRuns = turned(told, point);
        }
        for (int i = 0; i < point.length; i++) { // a weight that comes back starts where the app has it
            point[i] = point[i] == DEAD ? 0 : point[i];
        }
        if (deadRuns != null) {
            bury(deadRuns, point);
        }
        Spec sent = sent(point);
        float[] moved = Packet.unpack(reader.bytes(reader.left()), sent, codec()).values;
        float[] statistics = new float[spec.size()];
        for (int n = 0; n < sent.count(); n++) {
            int t = spec.indexOf(sent.tensors().get(n).path);
            int from = sent.offset(n);
            for (int i = spec.offset(t); i < spec.offset(t + 1); i++) {
                if (!spec.tensors().get(t).trainable) {
                    statistics[i] = moved[from++];
                } else if (point[i] != DEAD) {
                    point[i] += (int) Math.rint(moved[from++] / step);
                }
            }
        }
        return weights(point, statistics);
    }

    private Codec codec() {
        return Ecsq.lossless(step);
    }

    /** Returns the model at a point; statistics are taken as they are. */
    float[] weights(int[] point, float[] statistics) {
        float[] out = new float[spec.size()];
        for (int t = 0; t < spec.count(); t++) {
            boolean trains = spec.tensors().get(t).trainable;
            for (int i = spec.offset(t); i < spec.offset(t + 1); i++) {
                out[i] = trains ? (float) (origin[i] + step * point[i]) : statistics[i];
                out[i] = trains && point[i] == DEAD ? 0 : out[i];
            }
        }
        return out;
    }

    /** Returns which runs are dead in the version that is sent, all pruned tensors' end to end. */
    private boolean[] turned(byte[] told, int[] point) {
        List<TensorSpec> tensors = new ArrayList<>();
        for (int t = 0; t < spec.count(); t++) {
            if (zeroRuns[t] > 0) {
                tensors.add(runsOf(spec.tensors().get(t), zeroRuns[t]));
            }
        }
        Spec runs = new Spec(tensors);
        float[] turns = Packet.unpack(told, runs, codec()).values;
        boolean[] dead = new boolean[turns.length];
        Arrays.fill(dead, true);
        eachPruned((value, run) -> dead[run] &= point[value] == DEAD);
        for (int i = 0; i < dead.length; i++) {
            float now = (dead[i] ? 1 : 0) + turns[i];
            if (now != 0 && now != 1) {
                throw new WireException("value", "what is alive cannot come back, what is dead cannot die");
            }
            dead[i] = now == 1;
        }
        return dead;
    }

    private static TensorSpec runsOf(TensorSpec tensor, int run) {
        int[] shape = new int[tensor.rank()];
        for (int i = 0; i < shape.length; i++) {
            shape[i] = i == 0 ? tensor.length(0) / run : tensor.length(i);
        }
        return new TensorSpec(tensor.path, shape, true);
    }

    private void bury(boolean[] deadRuns, int[] point) {
        eachPruned((value, run) -> point[value] = deadRuns[run] ? DEAD : point[value]);
    }

    /** A value and the run that it belongs to. */
    private interface InRun {
        void at(int value, int run);
    }

    private void eachPruned(InRun what) {
        int first = 0;
        for (int t = 0; t < spec.count(); t++) {
            if (zeroRuns[t] > 0) {
                TensorSpec tensor = spec.tensors().get(t);
                int rest = tensor.size / tensor.length(0);
                for (int i = 0; i < tensor.size; i++) {
                    what.at(spec.offset(t) + i, first + Pruning.runOf(i, rest, zeroRuns[t]));
                }
                first += tensor.size / zeroRuns[t];
            }
        }
    }

    /** Returns the shapes of what moves: of a tensor with dead weights only the others, in a row. */
    private Spec sent(int[] point) {
        List<TensorSpec> out = new ArrayList<>();
        for (int t = 0; t < spec.count(); t++) {
            TensorSpec tensor = spec.tensors().get(t);
            int alive = 0;
            for (int i = spec.offset(t); i < spec.offset(t + 1); i++) {
                alive += point[i] == DEAD ? 0 : 1;
            }
            if (alive > 0) {
                boolean whole = alive == tensor.size;
                out.add(whole ? tensor : new TensorSpec(tensor.path, new int[] {alive}, true));
            }
        }
        return new Spec(out);
    }

    /** Marks what is pruned in a point, in place. */
    static void prune(int[] point, boolean[] lives) {
        for (int i = 0; lives != null && i < point.length; i++) {
            point[i] = lives[i] ? point[i] : DEAD;
        }
    }
}
