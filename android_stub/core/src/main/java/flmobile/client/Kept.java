package flmobile.client;

import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Reader;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Map;

/**
 * All that a client remembers, one file that is replaced whole: a client that is killed at any moment goes on from what it
 * had. Values are of the agreement's specs; null where there is nothing.
 */
final class Kept {
    private static final long MAGIC = 0x324B4C46L; // FLK2
    private static final String NAME = "client.kept";

    String run = "";
    long device = -1;
    /** Answers made in this run, each charged before it leaves. */
    long answers;
    /** Model version that is held, and its point on the lattice. */
    long held;
    int[] point;
    /** What accepted packets left out, of {@code trainable}. */
    float[] residual;
    /** Control variate or linear term, of {@code trainable}. */
    float[] variate;
    /** Tensors that never leave the client, of {@code whole} without {@code spec}. */
    float[] own;
    /** An answer whose receipt has not come: the assignment as it came, and what it is. */
    String assignment;
    int attempt;
    byte[] packet;
    float[] wanted;
    float[] ownAfter;

    Kept copy() {
        Kept copy = new Kept();
        copy.run = run;
        copy.device = device;
        copy.answers = answers;
        copy.held = held;
        copy.point = point;
        copy.residual = residual;
        copy.variate = variate;
        copy.own = own;
        copy.assignment = assignment;
        copy.attempt = attempt;
        copy.packet = packet;
        copy.wanted = wanted;
        copy.ownAfter = ownAfter;
        return copy;
    }

    /** Returns whether an answer is on its way. */
    boolean underWay() {
        return assignment != null;
    }

    Map<String, Object> assignmentTold() {
        return Json.object(assignment.getBytes(StandardCharsets.UTF_8));
    }

    /** Forgets the answer. */
    void done() {
        assignment = null;
        packet = null;
        wanted = null;
        ownAfter = null;
        attempt = 0;
    }

    /** Writes it; a crash leaves what was there before. */
    void save(Path folder) throws IOException {
        Writer out = new Writer().u32(MAGIC);
        text(out, run);
        out.u64(device).u64(answers).u64(held).u64(attempt);
        text(out, assignment == null ? "" : assignment);
        out.u8(point == null ? 0 : 1).u32(point == null ? 0 : point.length);
        for (int i = 0; point != null && i < point.length; i++) {
            out.u32(point[i]);
        }
        for (float[] values : new float[][] {residual, variate, own, wanted, ownAfter}) {
            out.u8(values == null ? 0 : 1).u32(values == null ? 0 : values.length);
            out.floats(values == null ? new float[0] : values);
        }
        out.u8(packet == null ? 0 : 1).u32(packet == null ? 0 : packet.length);
        out.bytes(packet == null ? new byte[0] : packet);
        byte[] body = out.toBytes();
        replace(folder.resolve(NAME), out.bytes(Hashes.sha256(body)).toBytes());
    }

    /**
     * Reads it; a client that never ran keeps nothing.
     *
     * @throws WireException reason {@code storage}: the file is damaged
     */
    static Kept load(Path folder) throws IOException {
        Path path = folder.resolve(NAME);
        if (!Files.exists(path)) {
            return new Kept();
        }
        byte[] data = Files.readAllBytes(path);
        int end = data.length - 32;
        byte[] digest = Arrays.copyOfRange(data, Math.max(end, 0), data.length);
        if (end < 0 || !Arrays.equals(Hashes.sha256(Arrays.copyOf(data, end)), digest)) {
            throw new WireException("storage", path + " is damaged; remove it to begin as a client that holds nothing");
        }
        Reader in = new Reader(data, 0, end);
        if (in.u32() != MAGIC) {
            throw new WireException("storage", path + " is of another version; remove it to begin anew");
        }
        Kept kept = new Kept();
        kept.run = text(in);
        kept.device = in.u64();
        kept.answers = in.u64();
        kept.held = in.u64();
        kept.attempt = (int) in.u64();
        String assignment = text(in);
        kept.assignment = assignment.isEmpty() ? null : assignment;
        boolean there = in.u8() == 1;
        int[] point = new int[(int) in.u32()];
        for (int i = 0; i < point.length; i++) {
            point[i] = (int) in.u32();
        }
        kept.point = there ? point : null;
        kept.residual = floats(in);
        kept.variate = floats(in);
        kept.own = floats(in);
        kept.wanted = floats(in);
        kept.ownAfter = floats(in);
        there = in.u8() == 1;
        byte[] packet = in.bytes((int) in.u32());
        kept.packet = there ? packet : null;
        in.end();
        return kept;
    }

    private static void text(Writer out, String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        out.u32(bytes.length).bytes(bytes);
    }

    private static String text(Reader in) {
        return new String(in.bytes((int) in.u32()), StandardCharsets.UTF_8);
    }

    private static float[] floats(Reader in) {
        boolean there = in.u8() == 1;
        float[] values = in.floats((int) in.u32());
        return there ? values : null;
    }

    /** Replaces a file whole: written beside, forced to disk, moved over. */
    static void replace(Path path, byte[] data) throws IOException {
        Files.createDirectories(path.getParent());
        Path beside = path.resolveSibling(path.getFileName() + ".new");
        try (FileChannel channel = FileChannel.open(
                beside, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING)) {
            ByteBuffer buffer = ByteBuffer.wrap(data);
            while (buffer.hasRemaining()) {
                channel.write(buffer);
            }
            channel.force(true);
        }
        Files.move(beside, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }
}
