package flmobile.client;

import flmobile.core.Json;
import flmobile.core.WireException;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** How a client trains in a round; the fields of {@code fl_mobile.records.FitPlan}. */
public final class FitPlan {
    private static final Set<String> FIELDS = new HashSet<>(Arrays.asList(
            "epochs", "batch_size", "learning_rate", "optimizer", "momentum", "loss", "from_logits", "proximal_mu",
            "clip_gradient_norm", "shuffle", "trained", "keep_zeros", "fake_quant", "task",
            "label_smoothing", "class_weights"));

    public final int epochs;
    public final int batchSize;
    public final double learningRate;
    public final String optimizer;
    public final double momentum;
    public final String loss;
    public final double proximalMu;
    public final double clipGradientNorm;
    public final boolean shuffle;
    public final double labelSmoothing;
    /** What the loss of each class is multiplied by; empty is 1. */
    public final List<Double> classWeights;

    private FitPlan(Map<String, Object> told) {
        if (!told.keySet().equals(FIELDS)) { // an option that is passed over in silence would be another training
            throw new WireException("plan", "expected a plan of local training. Is this client older than the server?");
        }
        epochs = (int) Json.whole(told, "epochs", 1, 1 << 20);
        batchSize = (int) Json.whole(told, "batch_size", 0, 1 << 20);
        learningRate = Json.number(told, "learning_rate");
        optimizer = Json.text(told, "optimizer");
        momentum = Json.number(told, "momentum");
        loss = Json.text(told, "loss");
        proximalMu = Json.number(told, "proximal_mu");
        clipGradientNorm = Json.number(told, "clip_gradient_norm");
        shuffle = Json.flag(told.get("shuffle"));
        labelSmoothing = Json.number(told, "label_smoothing");
        classWeights = Json.numbers(told.get("class_weights"));
        boolean plain = Json.list(told.get("trained")).isEmpty();
        if (!plain || Json.flag(told.get("keep_zeros")) || Json.flag(told.get("fake_quant"))) {
            throw new WireException("plan", "a training program trains all of its weights as they are, this plan does not");
        }
        if (!Json.text(told, "task").equals("classification")) {
            throw new WireException("plan", "this client's examples have one class each, the plan's task is another");
        }
        if (!(learningRate > 0 && momentum >= 0 && momentum < 1 && proximalMu >= 0 && clipGradientNorm >= 0)) {
            throw new WireException("plan", "a rate, momentum or norm of the plan is out of range");
        }
    }

    static FitPlan read(Map<String, Object> told) {
        return new FitPlan(told);
    }

    /** Returns how far a client of so many examples moves, counted in SGD steps. */
    double localSteps(long examples) {
        long steps = epochs * (batchSize > 0 ? (examples + batchSize - 1) / batchSize : 1);
        if (optimizer.equals("momentum")) {
            return (steps - momentum * (1 - Math.pow(momentum, steps)) / (1 - momentum)) / (1 - momentum);
        }
        return steps;
    }
}
