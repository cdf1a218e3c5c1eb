package flmobile.client;

import flmobile.codecs.Codec;
import flmobile.codecs.Codecs;
import flmobile.core.Json;
import flmobile.core.WireException;
import java.math.BigInteger;
import java.util.Map;

/** What the coordinator asks of this client in a round. */
public final class Assignment {
    private static final long MOST_ROUND = (1L << 32) - 1;
    public final long round;
    public final FitPlan plan;
    /** Names what is drawn: order of examples, dropout, rounding; 64 bits, unsigned. */
    public final BigInteger seed;
    final Codec upload;
    final double clipNorm;
    final double maxExamples;
    final String token;
    final Map<String, Blob> parts;
    final Map<String, Blob> programs;
    private final long device;

    private Assignment(Map<String, Object> told) {
        round = Json.whole(told, "round", 0, MOST_ROUND);
        plan = FitPlan.read(Json.object(told, "plan"));
        upload = Codecs.parse(Json.text(told, "upload"));
        clipNorm = Json.number(told, "clip_norm");
        maxExamples = Json.number(told, "max_examples");
        device = Json.whole(told, "device", 0, MOST_ROUND);
        token = Json.text(told, "token");
        parts = Blob.readAll(Json.object(told, "parts"));
        programs = Blob.readAll(Json.object(told, "programs"));
        String digits = Json.text(told, "seed");
        if (!digits.matches("[0-9]{1,20}") || !parts.containsKey("model") || !token.matches("[!-~]+")) {
            throw new WireException("json", "the assignment names no model, no seed or no token");
        }
        seed = new BigInteger(digits);
    }

    static Assignment read(Map<String, Object> told) {
        return new Assignment(told);
    }

    /** Returns where an answer goes, as far as it can be read of an assignment that asks for too much. */
    static String path(Map<String, Object> told, int attempt) {
        long round = Json.whole(told, "round", 0, MOST_ROUND);
        long device = Json.whole(told, "device", 0, MOST_ROUND);
        return "/v1/rounds/" + round + "/devices/" + device + "/attempts/" + attempt;
    }

    /** Returns where an answer goes. */
    String path(int attempt) {
        return "/v1/rounds/" + round + "/devices/" + device + "/attempts/" + attempt;
    }

    /** Returns how far the server believes a client of so many examples to move. */
    double localSteps(long examples) {
        return plan.localSteps(maxExamples > 0 ? (long) Math.min(examples, maxExamples) : examples);
    }
}
