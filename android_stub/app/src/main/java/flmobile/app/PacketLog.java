package flmobile.app;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;

/** What left this phone: a line a packet, written before it is sent. */
final class PacketLog {
    private static final int MOST = 1000;
    private final Path file;

    /** A packet. */
    static final class Packet {
        final long timeMs;
        final long round;
        final int bytes;
        /** {@code accepted}, why it does not count, or {@code sent} while there is no receipt. */
        final String outcome;

        Packet(long timeMs, long round, int bytes, String outcome) {
            this.timeMs = timeMs;
            this.round = round;
            this.bytes = bytes;
            this.outcome = outcome;
        }
    }

    PacketLog(Path file) {
        this.file = file;
    }

    /** Notes that a packet is about to be sent; the same one again, after a crash, is no second one. */
    synchronized void sending(long timeMs, long round, int bytes) throws IOException {
        List<Packet> all = read();
        Packet last = all.isEmpty() ? null : all.get(all.size() - 1);
        if (last == null || last.round != round || last.bytes != bytes || !last.outcome.equals("sent")) {
            all.add(new Packet(timeMs, round, bytes, "sent"));
            write(all);
        }
    }

    /** Notes what became of a round's last packet. */
    synchronized void settled(long round, String outcome) throws IOException {
        List<Packet> all = read();
        for (int i = all.size() - 1; i >= 0; i--) {
            Packet packet = all.get(i);
            if (packet.round == round) {
                String word = outcome.replaceAll("[^A-Za-z0-9_-]", "-");
                all.set(i, new Packet(packet.timeMs, round, packet.bytes, word.isEmpty() ? "refused" : word));
                write(all);
                return;
            }
        }
    }

    /** Returns the packets, the oldest first; lines that cannot be read are passed over. */
    synchronized List<Packet> read() throws IOException {
        List<Packet> out = new ArrayList<>();
        if (Files.exists(file)) {
            for (String line : new String(Files.readAllBytes(file), StandardCharsets.UTF_8).split("\n")) {
                if (line.matches("[0-9]{1,18} [0-9]{1,18} [0-9]{1,9} [A-Za-z0-9_-]+")) {
                    String[] part = line.split(" ");
                    long round = Long.parseLong(part[1]);
                    out.add(new Packet(Long.parseLong(part[0]), round, Integer.parseInt(part[2]), part[3]));
                }
            }
        }
        return out;
    }

    synchronized void delete() throws IOException {
        Files.deleteIfExists(file);
    }

    private void write(List<Packet> all) throws IOException {
        StringBuilder text = new StringBuilder();
        for (Packet packet : all.subList(Math.max(0, all.size() - MOST), all.size())) {
            text.append(packet.timeMs).append(' ').append(packet.round).append(' ');
            text.append(packet.bytes).append(' ').append(packet.outcome).append('\n');
        }
        Files.createDirectories(file.getParent());
        Path draft = file.resolveSibling(file.getFileName() + ".new");
        Files.write(draft, text.toString().getBytes(StandardCharsets.UTF_8));
        Files.move(draft, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }
}
