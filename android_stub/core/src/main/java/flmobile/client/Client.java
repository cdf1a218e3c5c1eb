package flmobile.client;

import flmobile.client.Environment.Step;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.WireException;
import flmobile.wire.Agreement;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import javax.net.ssl.SSLSocketFactory;

/**
 * A device's whole life with one coordinator; the mirror of {@code fl_mobile/client/participate.py}.
 *
 * <pre>
 * an answer under way? ─▶ its receipt ─▶ keep
 * check in ─▶ retry window ─▶ come back in it
 *         └▶ assignment ─▶ model, program ─▶ conditions? ─▶ train ─▶ answer ─▶ (on disk) ─▶ upload ─▶ receipt ─▶ keep
 * </pre>
 *
 * It may be killed or cancelled at any moment: a new one over the same folder goes on. Not for two threads at once.
 */
public final class Client {
    private static final long FREE_DISK_BYTES = 64L << 20;
    private static final String PROGRAM = "training";
    private static final String CONTRACT = "training-contract";

    private final Path folder;
    private final Environment environment;
    private final TrainEngine.Loader loader;
    private final Examples examples;
    private final Remote remote;
    private final byte[] secret;
    private final Ed25519 key;
    private final Random random = new Random();
    private Kept kept;
    private Agreement agreement;
    private final Set<String> always = new HashSet<>();

    /**
     * @param server {@code http://host:port} or {@code https://host}
     * @param folder what the client keeps; nobody else's
     * @param trusted what makes TLS connections; null trusts what the system trusts
     * @throws WireException reason {@code storage}: what it kept is damaged
     */
    public Client(
            String server,
            Path folder,
            Examples examples,
            TrainEngine.Loader loader,
            Environment environment,
            Patience patience,
            SSLSocketFactory trusted)
            throws IOException {
        this.folder = folder;
        this.environment = environment;
        this.loader = loader;
        this.examples = examples;
        Files.createDirectories(folder);
        secret = deviceSecret(folder);
        key = new Ed25519(secret);
        kept = Kept.load(folder);
        remote = new Remote(new Http(server, patience.timeoutMs, trusted), key, patience, environment);
    }

    /** Returns what the key pair follows from; the first time it is drawn. Android keeps other apps out of the folder. */
    private static byte[] deviceSecret(Path folder) throws IOException {
        Path path = folder.resolve("device.key");
        if (!Files.exists(path)) {
            byte[] seed = new byte[Ed25519.KEY_BYTES];
            new SecureRandom().nextBytes(seed);
            Kept.replace(path, seed);
            path.toFile().setReadable(false, false);
            path.toFile().setReadable(true, true);
        }
        byte[] seed = Files.readAllBytes(path);
        if (seed.length != Ed25519.KEY_BYTES) {
            throw new WireException("storage", path + " is no key; remove it to enrol as another device");
        }
        return seed;
    }

    /** Returns the device's index in the coordinator's run; a new run is begun as a client that holds nothing. */
    public long enrol() throws IOException {
        environment.at(Step.ENROL);
        Map<String, Object> told = remote.get("/v1/run");
        String run = Json.text(told, "run");
        if (told.get("terms") == null) {
            throw new WireException("terms", "the coordinator has none yet: it gathers sums, which this client does not send; come again");
        }
        Blob terms = Blob.read(Json.field(told, "terms"));
        byte[] body = remember(terms);
        Blob initial = Blob.read(Json.field(Json.object(body), "initial"));
        agreement = Agreement.read(body, remember(initial));
        always.add(terms.sha256);
        always.add(initial.sha256);
        remote.run = run;
        if (!kept.run.equals(run) || kept.device < 0) {
            remote.device = -1;
            String publicKey = Base64.getEncoder().encodeToString(key.publicKey());
            Map<String, Object> answer =
                    remote.signed("/v1/devices", Collections.<String, Object>singletonMap("public_key", publicKey));
            Kept fresh = new Kept();
            fresh.run = run;
            fresh.device = Json.whole(answer, "device", 0, (1L << 32) - 1);
            save(fresh);
        }
        remote.device = kept.device;
        return kept.device;
    }

    /**
     * Checks in, and does what is asked.
     *
     * @throws ServerException the coordinator does not want this client, or cannot be reached
     * @throws WireException what came from it is damaged or does not fit; nothing was trained with it
     * @throws IOException the disk is full or broken; what was kept before is kept
     */
    public Visit visit() throws IOException {
        if (agreement == null || remote.device < 0) {
            enrol();
        }
        if (kept.underWay()) {
            return handIn();
        }
        environment.at(Step.CHECK_IN);
        Map<String, Object> message = new LinkedHashMap<>();
        message.put("held", kept.held);
        message.put("runtime", loader.runtime());
        message.put("conditions", Collections.singletonMap("ready", environment.whyNot().isEmpty()));
        Map<String, Object> told = remote.signed("/v1/devices/" + remote.device + "/check-ins", message);
        if (Boolean.TRUE.equals(told.get("finished"))) {
            return new Visit(-1, false, "", 0, true);
        }
        if (told.containsKey("retry")) {
            Map<String, Object> retry = Json.object(told, "retry");
            return new Visit(-1, false, String.valueOf(retry.get("reason")), waitOf(retry), false);
        }
        return takePart(Json.object(told, "assignment"));
    }

    private double waitOf(Map<String, Object> retry) {
        double first = Json.number(retry, "after_seconds");
        double last = Json.number(retry, "before_seconds");
        return Math.max(0, first + random.nextDouble() * (last - first));
    }

    private Visit takePart(Map<String, Object> told) throws IOException {
        Assignment assignment;
        try {
            assignment = Assignment.read(told);
        } catch (WireException unknown) { // a codec or plan of a newer server: say so, and come again
            return giveUp(told, unknown.reason());
        }
        long needed = FREE_DISK_BYTES;
        for (Blob part : assignment.parts.values()) {
            needed += part.bytes;
        }
        String why = environment.whyNot();
        if (why.isEmpty() && agreement.noise != null && kept.answers >= agreement.noise.answers) {
            why = "privacy-spent"; // by this client's own count, and not by the server's
        }
        why = why.isEmpty() && Files.getFileStore(folder).getUsableSpace() < needed ? "no-room" : why;
        if (!why.isEmpty()) {
            return giveUp(told, why);
        }
        environment.at(Step.DOWNLOAD);
        forget(assignment);
        Agreement.Decoded decoded = agreement.decode(
                part(assignment, "model"), part(assignment, "prediction"), part(assignment, "beside"),
                assignment.round, kept.held, kept.point);
        if (agreement.algorithm.equals("scaffold") && decoded.beside == null) {
            throw new WireException("json", "the assignment lacks what the algorithm sends");
        }
        Kept received = kept.copy();
        received.held = assignment.round;
        received.point = decoded.point;
        save(received);
        environment.at(Step.RECEIVED);
        forgetParts(assignment.parts.values());
        Answer made;
        try {
            made = trained(assignment, decoded);
        } catch (DivergedException diverged) {
            return giveUp(told, "diverged");
        } catch (WireException refused) {
            return giveUp(told, refused.reason());
        }
        environment.at(Step.ANSWER);
        Kept answered = kept.copy();
        answered.assignment = Json.write(told);
        answered.packet = made.packet;
        answered.wanted = made.wanted;
        answered.ownAfter = made.own;
        answered.answers++;
        save(answered);
        return handIn();
    }

    private Answer trained(Assignment assignment, Agreement.Decoded decoded) throws IOException {
        if (!assignment.programs.containsKey(PROGRAM) || !assignment.programs.containsKey(CONTRACT)) {
            throw new WireException("program", "the coordinator names no training program");
        }
        byte[] program = remember(assignment.programs.get(PROGRAM));
        byte[] json = remember(assignment.programs.get(CONTRACT));
        float[] pull = Answer.pullOf(agreement, decoded, kept);
        Spec whole = agreement.whole;
        Contract contract = Contract.check(json, program, whole, assignment.plan, pull != null);
        float[] weights = agreement.first.clone();
        whole.insert(weights, agreement.spec, decoded.weights);
        float[] start = weights;
        Spec ownSpec = Answer.ownSpec(agreement);
        if (kept.own != null && ownSpec.count() > 0) {
            start = weights.clone();
            whole.insert(start, ownSpec, kept.own);
        }
        float[] pulled = null;
        if (pull != null) {
            pulled = new float[whole.size()];
            whole.insert(pulled, agreement.trainable, pull);
        }
        environment.at(Step.TRAIN);
        Update update;
        try (TrainEngine engine = loader.load(program)) {
            LocalTraining training = new LocalTraining(engine, contract, whole, examples, environment);
            update = training.train(assignment, weights, start, pulled);
        }
        float[] first = whole.select(agreement.first, ownSpec);
        return Answer.make(agreement, assignment, decoded, update, kept.residual, first, secret, kept.run);
    }

    /** Uploads an answer, or finds out what became of it; what the client keeps follows from the receipt. */
    private Visit handIn() throws IOException {
        environment.at(Step.UPLOAD);
        Assignment assignment = Assignment.read(kept.assignmentTold());
        environment.sending(assignment.round, kept.packet);
        Remote.Told told = remote.send(assignment.path(kept.attempt), kept.packet, assignment.token);
        environment.at(Step.SETTLE);
        Receipt receipt = null;
        double wait = 0;
        if (told.answer.containsKey("receipt")) {
            receipt = Receipt.read(Json.object(told.answer, "receipt"));
        } else if (told.status == 401 || told.status == 404 || told.status == 409 || told.status == 410) {
            // too late, one way or another: as if it had not been asked
            wait = told.answer.containsKey("retry") ? waitOf(Json.object(told.answer, "retry")) : 0;
        } else {
            throw Remote.refused(told.status, told.answer, "upload");
        }
        Kept settled = kept.copy();
        Answer.keep(agreement, assignment, settled, receipt);
        int attempt = settled.attempt;
        settled.done();
        save(settled);
        if (receipt != null && !receipt.accepted) { // the same examples would give the same packet again
            remote.ask("DELETE", assignment.path(attempt), assignment.token);
        }
        String reason = receipt != null ? receipt.reason : told.reason();
        return new Visit(assignment.round, receipt != null && receipt.accepted, reason, wait, false);
    }

    private Visit giveUp(Map<String, Object> told, String why) {
        remote.ask("DELETE", Assignment.path(told, 0), Json.text(told, "token"));
        return new Visit(Json.whole(told, "round", 0, Long.MAX_VALUE), false, why, 0, false);
    }

    private void save(Kept next) throws IOException {
        next.save(folder);
        kept = next;
    }

    private byte[] part(Assignment assignment, String name) throws IOException {
        Blob part = assignment.parts.get(name);
        return part == null ? new byte[0] : remote.fetch(part, blobPath(part));
    }

    /** Returns a blob that is kept on disk: terms, first weights, programs. */
    private byte[] remember(Blob blob) throws IOException {
        Path path = blobPath(blob);
        if (Files.exists(path) && Files.size(path) == blob.bytes) {
            byte[] data = Files.readAllBytes(path);
            if (Hashes.hex(Hashes.sha256(data)).equals(blob.sha256)) {
                return data;
            }
        }
        return remote.fetch(blob, path);
    }

    private Path blobPath(Blob blob) {
        return folder.resolve("blobs").resolve(blob.sha256);
    }

    /** Removes programs and parts of earlier rounds; what a killed process left of this one's stays. */
    private void forget(Assignment assignment) throws IOException {
        Set<String> stays = new HashSet<>(always);
        for (Blob program : assignment.programs.values()) {
            stays.add(program.sha256);
        }
        for (Blob part : assignment.parts.values()) {
            stays.add(part.sha256);
        }
        Path blobs = folder.resolve("blobs");
        if (!Files.isDirectory(blobs)) {
            return;
        }
        try (DirectoryStream<Path> files = Files.newDirectoryStream(blobs)) {
            for (Path file : files) {
                if (!stays.contains(file.getFileName().toString())) {
                    Files.deleteIfExists(file);
                }
            }
        }
    }

    private void forgetParts(Collection<Blob> parts) throws IOException {
        for (Blob part : parts) {
            Files.deleteIfExists(blobPath(part));
        }
    }
}
