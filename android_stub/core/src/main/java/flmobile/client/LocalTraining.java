package flmobile.client;

import flmobile.core.Hashes;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** Trains by a plan on a program: the batches, order and sums of {@code device_sim/engines/trainers/litert.py}. */
final class LocalTraining {
    private final TrainEngine engine;
    private final Contract contract;
    private final Spec whole;
    private final Examples examples;
    private final Environment environment;

    LocalTraining(TrainEngine engine, Contract contract, Spec whole, Examples examples, Environment environment) {
        this.engine = engine;
        this.contract = contract;
        this.whole = whole;
        this.examples = examples;
        this.environment = environment;
    }

    /**
     * Returns the update relative to {@code weights}.
     *
     * @param weights values of the whole spec
     * @param start where training starts instead: the client's own tensors in place
     * @param pull is added to every step's gradient, values of the whole spec; null for none
     * @throws WireException reason {@code conditions}: the device's conditions do not allow to go on
     */
    Update train(Assignment assignment, float[] weights, float[] start, float[] pull) {
        FitPlan plan = assignment.plan;
        engine.run("set_weights", tensors(start, false));
        if (pull != null) {
            engine.run("set_correction", tensors(pull, true));
        }
        int seed = (int) (Hashes.seedFor(assignment.seed, "dropout") & 0x7FFFFFFF);
        int count = examples.count();
        double total = 0;
        for (int epoch = 0; epoch < plan.epochs; epoch++) {
            int[] order = order(count, plan.shuffle, assignment.seed.longValue(), epoch);
            for (int from = 0; from < count; from += plan.batchSize) {
                environment.at(Environment.Step.STEP);
                String why = environment.whyNot();
                if (!why.isEmpty()) {
                    throw new WireException("conditions", why);
                }
                int[] rows = Arrays.copyOfRange(order, from, Math.min(from + plan.batchSize, count));
                float loss = engine.run("train", batch(rows, seed, plan)).get("loss").getFloat(0);
                total += epoch == plan.epochs - 1 ? (double) loss * rows.length : 0;
            }
        }
        Map<String, ByteBuffer> after = engine.run("get_weights", one("dummy", floats(1)));
        float[] delta = new float[whole.size()];
        for (int t = 0; t < whole.count(); t++) {
            ByteBuffer values = after.get(contract.names[t]);
            if (values == null || values.remaining() != 4 * whole.tensors().get(t).size) {
                throw new WireException("program", "get_weights lacks tensor '" + whole.tensors().get(t).path + "'");
            }
            values.asFloatBuffer().get(delta, whole.offset(t), whole.tensors().get(t).size);
        }
        for (int i = 0; i < delta.length; i++) {
            delta[i] -= weights[i];
        }
        return new Update(delta, count, total / count);
    }

    /** Returns the examples in the order of an epoch: by a hash of their place, ties by place. */
    static int[] order(int count, boolean shuffle, long seed, int epoch) {
        long[] keys = new long[count];
        Integer[] places = new Integer[count];
        for (int i = 0; i < count; i++) {
            places[i] = i;
            keys[i] = shuffle ? Hashes.stream(seed, ((long) epoch << 32) + i) : 0;
        }
        Arrays.sort(places, (a, b) -> Long.compareUnsigned(keys[a], keys[b]));
        int[] order = new int[count];
        for (int i = 0; i < count; i++) {
            order[i] = places[i];
        }
        return order;
    }

    /** Returns a step's inputs; a short batch repeats its last example, with mask 0. */
    private Map<String, ByteBuffer> batch(int[] rows, int seed, FitPlan plan) {
        String dtype = contract.inputs.get("x");
        ByteBuffer x = bytes(contract.batchSize * contract.exampleValues * (dtype.equals("uint8") ? 1 : 4));
        ByteBuffer y = bytes(4 * contract.batchSize);
        ByteBuffer mask = floats(contract.batchSize);
        for (int i = 0; i < contract.batchSize; i++) {
            int row = rows[Math.min(i, rows.length - 1)];
            examples.put(row, dtype, x);
            y.putInt(examples.label(row));
            mask.putFloat(i < rows.length ? 1 : 0);
        }
        if (x.hasRemaining()) {
            throw new WireException("program", "its examples have " + contract.exampleValues + " values, ours fewer");
        }
        Map<String, ByteBuffer> all = new HashMap<>();
        all.put("x", x);
        all.put("y", y);
        all.put("mask", mask);
        all.put("seed", bytes(4).putInt(seed));
        all.put("learning_rate", floats(1).putFloat((float) plan.learningRate));
        all.put("prox_mu", floats(1).putFloat((float) plan.proximalMu));
        all.keySet().retainAll(contract.inputs.keySet());
        for (ByteBuffer buffer : all.values()) {
            buffer.rewind();
        }
        return all;
    }

    private Map<String, ByteBuffer> tensors(float[] values, boolean trainableOnly) {
        Map<String, ByteBuffer> out = new HashMap<>();
        for (int t = 0; t < whole.count(); t++) {
            if (!trainableOnly || whole.tensors().get(t).trainable) {
                ByteBuffer buffer = floats(whole.tensors().get(t).size);
                buffer.asFloatBuffer().put(values, whole.offset(t), whole.tensors().get(t).size);
                out.put(contract.names[t], buffer);
            }
        }
        return out;
    }

    private static Map<String, ByteBuffer> one(String name, ByteBuffer value) {
        Map<String, ByteBuffer> out = new HashMap<>();
        out.put(name, value);
        return out;
    }

    private static ByteBuffer floats(int count) {
        return bytes(4 * count);
    }

    private static ByteBuffer bytes(int count) {
        return ByteBuffer.allocateDirect(count).order(ByteOrder.nativeOrder());
    }
}
