package flmobile.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.WireException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A server that answers what it likes, or breaks off: one reason comes out, or the right bytes. */
class RemoteTest {
    private static final long NOW = 1_767_225_600_000L;
    private final List<String> asked = new ArrayList<>();
    private final List<Answer> answers = new ArrayList<>();
    private HttpServer server;
    private Remote remote;

    @TempDir
    Path folder;

    /** What the server says next; {@code promised} more bytes than it sends breaks the connection off. */
    private static final class Answer {
        final int status;
        final byte[] body;
        final long promised;

        Answer(int status, byte[] body, long promised) {
            this.status = status;
            this.body = body;
            this.promised = promised;
        }
    }

    private void say(int status, String body) {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        answers.add(new Answer(status, bytes, bytes.length));
    }

    @BeforeEach
    void serve() throws IOException {
        server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", this::handle);
        server.start();
        Environment still = new Environment() {
            @Override
            public long clockMs() {
                return NOW;
            }

            @Override
            public void rest(double seconds) {}
        };
        Http http = new Http("http://127.0.0.1:" + server.getAddress().getPort(), 2000, null);
        remote = new Remote(http, new Ed25519(new byte[32]), new Patience(4, 0.01, 0.1, 2), still);
    }

    @AfterEach
    void stop() {
        server.stop(0);
    }

    private void handle(HttpExchange exchange) throws IOException {
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        try (InputStream in = exchange.getRequestBody()) {
            byte[] part = new byte[4096];
            for (int count = in.read(part); count >= 0; count = in.read(part)) {
                body.write(part, 0, count);
            }
        }
        String range = exchange.getRequestHeaders().getFirst("Range");
        String sent = exchange.getRequestHeaders().getFirst("Content-Range");
        String time = exchange.getRequestHeaders().getFirst("FL-Time");
        asked.add(exchange.getRequestMethod() + " " + (range != null ? range : sent != null ? sent : time) + " " + body.size());
        Answer answer = answers.size() > 1 ? answers.remove(0) : answers.get(0);
        try {
            exchange.sendResponseHeaders(answer.status, answer.promised == 0 ? -1 : answer.promised);
            exchange.getResponseBody().write(answer.body);
        } finally {
            exchange.close();
        }
    }

    private static Blob blob(byte[] data) {
        String json = "{\"sha256\": \"" + Hashes.hex(Hashes.sha256(data)) + "\", \"bytes\": " + data.length + "}";
        return Blob.read(Json.parse(json.getBytes(StandardCharsets.UTF_8)));
    }

    private static byte[] some(int count) {
        byte[] data = new byte[count];
        for (int i = 0; i < count; i++) {
            data[i] = (byte) (i * 31);
        }
        return data;
    }

    @Test
    void aDownloadGoesOnWhereItBrokeOffAlsoInAnotherProcess() throws IOException {
        byte[] data = some(5000);
        Path part = folder.resolve("part");
        Files.write(part, Arrays.copyOf(data, 1000)); // what a killed process left
        answers.add(new Answer(206, Arrays.copyOfRange(data, 1000, 3000), 4000));
        answers.add(new Answer(500, new byte[0], 0));
        answers.add(new Answer(206, Arrays.copyOfRange(data, 3000, 5000), 2000));
        assertArrayEquals(data, remote.fetch(blob(data), part));
        assertEquals(Arrays.asList("GET bytes=1000- 0", "GET bytes=3000- 0", "GET bytes=3000- 0"), asked);
    }

    @Test
    void bytesOfAnotherHashAreFetchedAnewAndNeverSeen() {
        byte[] data = some(500);
        answers.add(new Answer(200, some(501), 501));
        Path part = folder.resolve("part");
        ServerException gone = assertThrows(ServerException.class, () -> remote.fetch(blob(data), part));
        assertEquals("unreachable", gone.reason);
        assertEquals(4, asked.size());
    }

    @Test
    void aWrongClockIsSetByTheServers() {
        say(401, "{\"reason\": \"clock\", \"server_time_ms\": " + (NOW + 86_400_000L * 3) + "}");
        say(200, "{\"device\": 17}");
        assertEquals(17L, remote.signed("/v1/devices", Collections.<String, Object>emptyMap()).get("device"));
        assertEquals(Arrays.asList("POST " + NOW + " 2", "POST " + (NOW + 86_400_000L * 3) + " 2"), asked);
    }

    @Test
    void anUploadGoesOnFromWhatTheServerHas() {
        byte[] packet = some(100);
        answers.add(new Answer(503, new byte[0], 0));
        say(202, "{\"received\": 60}");
        say(201, "{\"receipt\": {}}");
        assertEquals(201, remote.send("/v1/x", packet, "token").status);
        assertEquals(Arrays.asList("PUT null 100", "GET null 0", "PUT bytes 60-99/100 40"), asked);
    }

    @Test
    void refusalsAreAnswersAndTheRestIsTriedAgainUntilPatienceEnds() {
        say(401, "{\"reason\": \"token-expired\"}");
        assertEquals("token-expired", remote.ask("GET", "/v1/x", "token").reason());
        say(403, "{\"reason\": \"token-of-another\"}");
        answers.remove(0);
        ServerException refused = assertThrows(ServerException.class, () -> remote.get("/v1/run"));
        assertEquals("token-of-another", refused.reason);
        answers.clear();
        asked.clear();
        say(500, "<html>");
        assertThrows(ServerException.class, () -> remote.get("/v1/run"));
        assertEquals(4, asked.size());
    }

    @Test
    void garbageIsOneReason() {
        for (String body : new String[] {"<html>hello", "[]", "{", "nul"}) {
            answers.clear();
            say(200, body);
            assertEquals("json", assertThrows(WireException.class, () -> remote.get("/v1/run")).reason());
        }
        answers.clear();
        answers.add(new Answer(200, new byte[Http.MOST_ANSWER_BYTES + 1], Http.MOST_ANSWER_BYTES + 1));
        assertEquals("too-long", assertThrows(WireException.class, () -> remote.get("/v1/run")).reason());
    }

    @Test
    void nobodyThere() {
        server.stop(0);
        ServerException gone = assertThrows(ServerException.class, () -> remote.get("/v1/run"));
        assertEquals(0, gone.status);
        assertTrue(gone.getMessage().contains("no answer in 4 tries"), gone.getMessage());
    }
}
