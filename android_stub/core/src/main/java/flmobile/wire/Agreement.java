package flmobile.wire;

import flmobile.codecs.Codec;
import flmobile.codecs.Codecs;
import flmobile.codecs.Sketch;
import flmobile.codecs.ecsq.Ecsq;
import flmobile.core.Json;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import flmobile.privacy.LocalNoise;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** What client and server agree on for a whole run, read from the coordinator's terms; see {@code docs/protocol.md}. */
public final class Agreement {
    private static final List<String> ALGORITHMS = Arrays.asList(
            "fedavg", "fedsgd", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "fednova", "feddyn");
    private static final List<String> MEMORIES = Arrays.asList("none", "error-feedback", "cafe");
    private static final int MOST_RANK = 8;

    /** All that trains, and its first weights; private tensors too. */
    public final Spec whole;
    public final float[] first;
    /** What travels. */
    public final Spec spec;
    /** What travels and trains. */
    public final Spec trainable;
    /** {@code scaffold}, {@code feddyn}, or one that leaves nothing to clients. */
    public final String algorithm;
    /** FedDyn's α. */
    public final float alpha;
    /** Whether clients keep what an encoded update left out. */
    public final boolean errorFeedback;
    /** Whether updates travel without examples and loss. */
    public final boolean bare;
    /** What every client adds to its own update; null adds nothing. */
    public final LocalNoise noise;

    private final float[] initial;
    private final Codec upload;
    private final Codec download;
    private final double deltaStep;
    private final Pruning pruning;
    private final boolean forward;

    private Agreement(Map<String, Object> told, byte[] weights) {
        long format = Json.whole(told, "format", 0, Long.MAX_VALUE);
        Object noised = told.get("local_noise");
        if (format < 1 || format > 2 || format == 2 != (noised != null)) {
            throw new WireException("terms", "this client reads terms of format 1, or 2 with noise; is it older than the server?");
        }
        noise = noised == null ? null : LocalNoise.read(Json.object(noised));
        whole = spec(Json.list(Json.field(told, "spec")));
        if (weights.length != 4L * whole.size()) {
            throw new WireException("terms", "expected " + 4L * whole.size() + " bytes of first weights");
        }
        first = new Reader(weights).finite(whole.size());
        Set<String> stays = new HashSet<>();
        for (Object path : Json.list(Json.field(told, "private"))) {
            stays.add(Json.text(path));
        }
        spec = whole.where(tensor -> !stays.contains(tensor.path));
        trainable = spec.where(tensor -> tensor.trainable);
        initial = whole.select(first, spec);
        Map<String, Object> named = Json.object(told, "algorithm");
        algorithm = known(Json.text(named, "name"), ALGORITHMS);
        alpha = algorithm.equals("feddyn") ? (float) Json.number(named, "alpha") : 0;
        errorFeedback = known(Json.text(told, "memory"), MEMORIES).equals("error-feedback");
        bare = Json.flag(Json.field(told, "bare_packets"));
        forward = Json.flag(Json.field(told, "forward"));
        upload = Codecs.parse(Json.text(told, "upload"));
        download = Codecs.parse(Json.text(told, "download"));
        deltaStep = Json.number(told, "delta_step");
        pruning = Pruning.read(Json.object(told, "pruning"));
    }

    /**
     * Reads the terms.
     *
     * @param terms their blob
     * @param weights the blob of first weights that they name
     * @throws WireException they are of another version, do not fit each other, or ask for what this client cannot do
     */
    public static Agreement read(byte[] terms, byte[] weights) {
        return new Agreement(Json.object(terms), weights);
    }

    private static String known(String name, List<String> all) {
        if (!all.contains(name)) {
            throw new WireException("terms", "'" + name + "' is not known here; is this client older than the server?");
        }
        return name;
    }

    private static Spec spec(List<?> rows) {
        List<TensorSpec> out = new ArrayList<>();
        for (Object row : rows) {
            List<?> parts = Json.list(row);
            List<?> lengths = parts.size() == 3 ? Json.list(parts.get(1)) : null;
            if (lengths == null || lengths.size() > MOST_RANK) {
                throw new WireException("terms", "expected path, shape and whether it trains");
            }
            int[] shape = new int[lengths.size()];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = (int) Json.whole(lengths.get(i), 0, Integer.MAX_VALUE);
            }
            out.add(new TensorSpec(Json.text(parts.get(0)), shape, Json.flag(parts.get(2))));
        }
        return new Spec(out);
    }

    /** Whether clients keep a control variate (SCAFFOLD) or a linear term (FedDyn). */
    public boolean keepsVariate() {
        return algorithm.equals("scaffold") || algorithm.equals("feddyn");
    }

    /** Returns the points that a model version can take; null where whole models travel. */
    Lattice lattice(long version) {
        if (deltaStep == 0) {
            return null;
        }
        int[] runs = pruning.sparsityAt(version) > 0 ? pruning.zeroRuns(spec) : new int[0];
        boolean any = false;
        for (int run : runs) {
            any |= run > 0;
        }
        return new Lattice(initial, spec, deltaStep, any ? runs : null);
    }

    /** What a download decodes to. */
    public static final class Decoded {
        /** Where local training starts, values of {@link Agreement#spec}. */
        public final float[] weights;
        /** Their coordinates on the lattice, null without one. */
        public final int[] point;
        /** What lives in this version, null if all does. */
        public final boolean[] lives;
        /** What every client takes off its update, under CAFe; else null. */
        public final float[] prediction;
        /** What the algorithm sent, values of {@link Agreement#trainable}; else null. */
        public final float[] beside;

        private Decoded(float[] weights, int[] point, boolean[] lives, float[] prediction, float[] beside) {
            this.weights = weights;
            this.point = point;
            this.lives = lives;
            this.prediction = prediction;
            this.beside = beside;
        }
    }

    /**
     * Returns what a download decodes to.
     *
     * @param prediction a packet, empty if none came
     * @param beside the same
     * @param version that was asked for
     * @param heldVersion that this client holds; 0 is the one of the terms
     * @param held its point, null for version 0's; not modified
     * @throws WireException the packets are damaged, of another model or version, or start from one that is not held
     */
    public Decoded decode(
            byte[] model, byte[] prediction, byte[] beside, long version, long heldVersion, int[] held) {
        Lattice lattice = lattice(version);
        float[] weights;
        int[] point = null;
        if (lattice == null) {
            Packet packet = Packet.unpack(model, spec, download);
            check(packet, Packet.MODEL, version);
            weights = packet.values;
        } else {
            long[] versions = lattice.versions(model);
            if (versions[0] != version) {
                throw new WireException("round", "expected model version " + version + ", got " + versions[0]);
            }
            if (versions[1] != 0 && versions[1] != heldVersion) {
                throw new WireException("base", "the delta starts from a version that this client does not hold");
            }
            boolean fromHeld = held != null && versions[1] == heldVersion;
            point = fromHeld ? held.clone() : new int[spec.size()];
            boolean sums = forward && upload instanceof Sketch && Packet.kindOf(model) == Packet.MODEL_SUMS;
            weights = sums
                    ? new ForwardedSums(lattice, (Sketch) upload).unpack(model, point)
                    : lattice.unpack(model, point);
        }
        boolean[] lives = pruning.masks(weights, spec, version);
        float[] predicted = null;
        if (prediction.length > 0) {
            Packet packet = Packet.unpack(prediction, spec, Ecsq.lossless(1));
            check(packet, Packet.MODEL_DELTA, version);
            predicted = packet.values;
        }
        float[] sent = null;
        if (beside.length > 0) {
            Spec of = algorithm.equals("scaffold") ? trainable : new Spec(new ArrayList<TensorSpec>());
            Packet packet = Packet.unpack(beside, of, download);
            check(packet, Packet.MODEL, version);
            sent = packet.values;
        }
        Pruning.apply(lives, weights);
        if (point != null) {
            Lattice.prune(point, lives);
        }
        return new Decoded(weights, point, lives, predicted, sent);
    }

    private static void check(Packet packet, int kind, long version) {
        if (packet.header.kind != kind) {
            throw new WireException("kind", "expected a packet of kind " + kind + ", got " + packet.header.kind);
        }
        if (packet.header.round != version || packet.header.baseRound != version) {
            throw new WireException("round", "expected model version " + version + ", got " + packet.header.round);
        }
    }
}
