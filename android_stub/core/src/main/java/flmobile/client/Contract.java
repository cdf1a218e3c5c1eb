package flmobile.client;

import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What must be known of a training program to run it; see {@code export/training/contract.py}. */
final class Contract {
    final int batchSize;
    final boolean proximal;
    final boolean correction;
    /** For each tensor of {@code Agreement.whole} its name in the program. */
    final String[] names;
    /** Inputs of the signature {@code train}: name → dtype, and how many values one example has. */
    final Map<String, String> inputs = new LinkedHashMap<>();
    final int exampleValues;
    private final Map<String, Object> told;

    private Contract(byte[] json, Spec whole) {
        told = Json.object(json);
        if (Json.whole(told, "format", 0, Long.MAX_VALUE) != 1) {
            throw program("its contract is of another format than 1");
        }
        batchSize = (int) Json.whole(told, "batch_size", 1, 1 << 20);
        proximal = Json.flag(Json.field(told, "proximal"));
        correction = Json.flag(Json.field(told, "correction"));
        List<?> weights = Json.list(Json.field(told, "weights"));
        names = new String[whole.count()];
        if (weights.size() != names.length) {
            throw program("it trains another model");
        }
        for (int t = 0; t < names.length; t++) {
            Map<String, Object> weight = Json.object(weights.get(t));
            if (!Json.text(weight, "path").equals(whole.tensors().get(t).path) || !sameShape(weight, whole, t)) {
                throw program("it trains another model");
            }
            names[t] = Json.text(weight, "name");
        }
        int values = 0;
        for (Object each : Json.list(Json.field(told, "signatures"))) {
            Map<String, Object> signature = Json.object(each);
            if (Json.text(signature, "name").equals("train")) {
                for (Object port : Json.list(Json.field(signature, "inputs"))) {
                    Map<String, Object> input = Json.object(port);
                    inputs.put(Json.text(input, "name"), Json.text(input, "dtype"));
                    if (Json.text(input, "name").equals("x")) {
                        values = valuesOf(Json.list(Json.field(input, "shape")));
                    }
                }
            }
        }
        exampleValues = values;
        if (!inputs.containsKey("x") || !inputs.containsKey("y")) {
            throw program("it has no signature 'train' with inputs x and y");
        }
    }

    /**
     * Checks a program's contract, and the program by its length and hash, before any native code sees it.
     *
     * @throws WireException reason {@code program}
     */
    static Contract check(byte[] json, byte[] program, Spec whole, FitPlan plan, boolean pulled) {
        Contract contract = new Contract(json, whole);
        Map<String, Object> told = contract.told;
        if (program.length != Json.whole(told, "file_bytes", 0, Long.MAX_VALUE)
                || !Hashes.hex(Hashes.sha256(program)).equals(Json.sha256(told, "sha256"))) {
            throw program("its length or SHA-256 differs from its contract");
        }
        boolean fits = plan.batchSize == contract.batchSize
                && plan.optimizer.equals(Json.text(told, "optimizer"))
                && plan.loss.equals(Json.text(told, "loss"))
                && plan.labelSmoothing == Json.number(told, "label_smoothing")
                && plan.classWeights.equals(told.containsKey("class_weights")
                        ? Json.numbers(told.get("class_weights")) : Collections.<Double>emptyList())
                && plan.clipGradientNorm == Json.number(told, "clip_norm")
                && (!plan.optimizer.equals("momentum") || plan.momentum == Json.number(told, "momentum"))
                && (contract.proximal || plan.proximalMu == 0)
                && (contract.correction || !pulled);
        if (!fits) {
            throw program("it was built for another plan of training");
        }
        return contract;
    }

    private static WireException program(String why) {
        return new WireException("program", "the coordinator's training program cannot be used: " + why);
    }

    private static boolean sameShape(Map<String, Object> weight, Spec whole, int t) {
        List<Object> shape = new ArrayList<>(Json.list(Json.field(weight, "shape")));
        boolean same = shape.size() == whole.tensors().get(t).rank();
        for (int i = 0; same && i < shape.size(); i++) {
            same = shape.get(i).equals((long) whole.tensors().get(t).length(i));
        }
        return same && Json.flag(Json.field(weight, "trainable")) == whole.tensors().get(t).trainable;
    }

    private static int valuesOf(List<?> shape) {
        long values = 1;
        for (int i = 1; i < shape.size(); i++) {
            values *= Json.whole(shape.get(i), 1, 1 << 20);
        }
        if (shape.isEmpty() || values > 1 << 24) {
            throw program("its examples are too large");
        }
        return (int) values;
    }
}
