package flmobile.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import flmobile.Shared;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A whole client against a coordinator that fails in every way: one reason, nothing lost, and it goes on afterwards. */
@Timeout(60)
class BadServerTest {
    private static final long DAYS_MS = 9 * 86_400_000L;
    private final Map<String, byte[]> answers = new HashMap<>();
    private final AtomicLong clockMs = new AtomicLong(System.currentTimeMillis());
    private ServerSocket server;
    private volatile String broken = "";
    private volatile String fault = "";
    private volatile boolean clockChecked;
    private long round;
    private Map<String, Object> noisedTerms;

    @TempDir
    Path folder;

    @BeforeEach
    void serve() throws IOException {
        server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        Thread accepting = new Thread(() -> {
            while (!server.isClosed()) {
                try {
                    Socket socket = server.accept();
                    Thread answering = new Thread(() -> answer(socket));
                    answering.setDaemon(true);
                    answering.start();
                } catch (IOException closed) {
                    return;
                }
            }
        });
        accepting.setDaemon(true);
        accepting.start();
        Map<String, Object> told = Json.object(Shared.json("tests/android_stub/rounds.json"), "deltas");
        Map<String, Object> terms = new LinkedHashMap<>(Json.object(told, "terms"));
        Spec spec = Shared.spec(terms.get("spec"));
        terms.put("initial", blob(new Writer().floats(Shared.drawn(spec, "plain", 50)).toBytes()));
        run("a-run", terms);
        terms.put("format", 2L);
        terms.put("local_noise", json("{'clip_norm': 1.0, 'noise_multiplier': 2.0, 'answers': 2}"));
        noisedTerms = terms;
        say("/v1/devices", json("{'device': 3}"));
        Map<String, Object> first = Json.object(Json.list(told.get("rounds")).get(1));
        round = (Long) first.get("version");
        Map<String, Object> assignment = json("{'upload': 'ecsq', 'clip_norm': 0.0, 'max_examples': 100, 'device': 3,"
                + " 'token': 't', 'seed': '1', 'programs': {}, 'plan': {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.1,"
                + " 'optimizer': 'sgd', 'momentum': 0.9, 'loss': 'sparse-categorical-crossentropy', 'from_logits': true, 'proximal_mu': 0.0,"
                + " 'clip_gradient_norm': 0.0, 'shuffle': true, 'keep_zeros': false, 'fake_quant': false, 'trained': [],"
                + " 'task': 'classification', 'label_smoothing': 0.0, 'class_weights': []}}");
        assignment.put("round", round);
        byte[] model = Base64.getDecoder().decode((String) first.get("model"));
        assignment.put("parts", Collections.<String, Object>singletonMap("model", blob(model)));
        say("/v1/devices/3/check-ins", Collections.<String, Object>singletonMap("assignment", assignment));
        say("/v1/rounds/" + round + "/devices/3/attempts/0", json("{}"));
    }

    private void run(String name, Map<String, Object> terms) {
        Map<String, Object> run = json("{'run': '" + name + "'}");
        run.put("terms", blob(Json.write(terms).getBytes(StandardCharsets.UTF_8)));
        say("/v1/run", run);
    }

    private static Map<String, Object> json(String text) {
        return new LinkedHashMap<>(Json.object(text.replace('\'', '"').getBytes(StandardCharsets.UTF_8)));
    }

    @AfterEach
    void stop() throws IOException {
        server.close();
    }

    private void say(String path, Map<String, Object> value) {
        answers.put(path, Json.write(value).getBytes(StandardCharsets.UTF_8));
    }

    private Map<String, Object> blob(byte[] data) {
        String digest = Hashes.hex(Hashes.sha256(data));
        answers.put("/v1/blobs/" + digest, data);
        return json("{'sha256': '" + digest + "', 'bytes': " + data.length + "}");
    }

    private void answer(Socket socket) {
        try (Socket open = socket; OutputStream out = open.getOutputStream()) {
            Map<String, String> heads = request(open.getInputStream());
            String path = heads.get("");
            if (clockChecked && heads.containsKey("fl-time")
                    && Math.abs(Long.parseLong(heads.get("fl-time")) - System.currentTimeMillis()) > 120_000) {
                String late = "{\"reason\": \"clock\", \"server_time_ms\": " + System.currentTimeMillis() + "}";
                write(out, 401, late.getBytes(StandardCharsets.UTF_8));
            } else if (!broken.isEmpty() && path.startsWith(broken)) {
                misbehave(out, answers.get(path));
            } else {
                byte[] answer = answers.get(path);
                write(out, answer == null ? 404 : 200, answer == null ? new byte[0] : answer);
            }
        } catch (IOException | InterruptedException gone) {
            return; // the client has hung up
        }
    }

    private static Map<String, String> request(InputStream in) throws IOException {
        ByteArrayOutputStream head = new ByteArrayOutputStream();
        while (!head.toString("ISO-8859-1").endsWith("\r\n\r\n")) {
            int next = in.read();
            if (next < 0) {
                throw new IOException("closed");
            }
            head.write(next);
        }
        Map<String, String> out = new HashMap<>();
        for (String line : head.toString("ISO-8859-1").split("\r\n")) {
            int colon = line.indexOf(": ");
            String name = colon < 0 ? "" : line.substring(0, colon).toLowerCase(Locale.ROOT);
            out.put(name, colon < 0 ? line.split(" ")[1] : line.substring(colon + 2));
        }
        for (int left = Integer.parseInt(out.getOrDefault("content-length", "0")); left > 0; left--) {
            in.read();
        }
        return out;
    }

    private static void write(OutputStream out, int status, byte[] body) throws IOException {
        String head = "HTTP/1.1 " + status + " x\r\nContent-Length: " + body.length + "\r\nConnection: close\r\n\r\n";
        out.write(head.getBytes(StandardCharsets.US_ASCII));
        out.write(body);
    }

    private void misbehave(OutputStream out, byte[] right) throws IOException, InterruptedException {
        switch (fault) {
            case "500":
            case "503":
            case "401":
                write(out, Integer.parseInt(fault), "<html>".getBytes(StandardCharsets.US_ASCII));
                break;
            case "garbage":
                write(out, 200, "\u0000\u0007{]".getBytes(StandardCharsets.ISO_8859_1));
                break;
            case "no http":
                out.write("SSH-2.0-OpenSSH_9.2\r\n".getBytes(StandardCharsets.US_ASCII));
                break;
            case "closes":
                break;
            case "silent":
                Thread.sleep(20_000);
                break;
            case "trickles its head":
                drip(out, ("HTTP/1.1 200 OK\r\nX: " + new String(new char[2000]).replace('\0', 'y')).getBytes(StandardCharsets.US_ASCII));
                break;
            case "trickles its body":
                out.write("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
                drip(out, new byte[2000]);
                break;
            case "swapped":
                byte[] other = right.clone();
                other[other.length / 2] ^= 4;
                write(out, 200, other);
                break;
            default:
                throw new IOException(fault);
        }
    }

    private static void drip(OutputStream out, byte[] data) throws IOException, InterruptedException {
        for (byte each : data) {
            out.write(each);
            out.flush();
            Thread.sleep(20);
        }
    }

    private Client client() throws IOException {
        Environment environment = new Environment() {
            @Override
            public long clockMs() {
                return clockMs.get();
            }

            @Override
            public void rest(double seconds) {} // all are written out: classes from a dex inherit no defaults

            @Override
            public String whyNot() {
                return "";
            }

            @Override
            public void sending(long round, byte[] packet) {}

            @Override
            public void at(Step step) {}
        };
        Examples examples = new Examples() {
            @Override
            public int count() {
                return 5;
            }

            @Override
            public int label(int example) {
                return 0;
            }

            @Override
            public void put(int example, String dtype, ByteBuffer out) {}
        };
        TrainEngine.Loader loader = new TrainEngine.Loader() {
            @Override
            public TrainEngine load(byte[] program) {
                throw new IllegalStateException("nothing here is to be loaded");
            }

            @Override
            public String runtime() {
                return "none";
            }
        };
        String url = "http://127.0.0.1:" + server.getLocalPort();
        return new Client(url, folder, examples, loader, environment, new Patience(2, 0.01, 0.02, 0.25), null);
    }

    private String reasonOf(Client client) throws IOException {
        try {
            return client.visit().reason;
        } catch (ServerException refused) {
            assertEquals(1, refused.getMessage().split("\n").length, refused.getMessage());
            return refused.reason;
        } catch (WireException damaged) {
            return damaged.reason();
        }
    }

    /** A client that has come as far as it can here: it holds the model, and the assignment names no program. */
    private void goesOn(Client client) throws IOException {
        broken = "";
        assertEquals("program", client.visit().reason);
        assertEquals(round, Kept.load(folder).held);
    }

    @Test
    void everyFaultAtEveryDoorIsOneReasonAndTheNextVisitGoesOn() throws IOException {
        String[][] expected = {
            {"500", "unknown"}, {"503", "unknown"}, {"401", "unknown"}, {"garbage", "json"}, {"no http", "unreachable"},
            {"closes", "unreachable"}, {"silent", "unreachable"}, {"trickles its head", "unreachable"},
            {"trickles its body", "unreachable"}, {"swapped", "unreachable"},
        };
        String[] doors = {"/v1/run", "/v1/blobs/", "/v1/devices"};
        for (String[] each : expected) {
            for (String door : each[0].equals("swapped") ? new String[] {"/v1/blobs/"} : doors) {
                Path fresh = Files.createDirectories(folder.resolve("of " + each[0] + door.replace('/', ' ')));
                Path before = folder;
                folder = fresh;
                Client client = client();
                fault = each[0];
                broken = door;
                long began = System.nanoTime();
                String reason = reasonOf(client);
                boolean blob = door.equals("/v1/blobs/") && each[0].equals("garbage"); // bytes of another hash
                assertEquals(blob ? "unreachable" : each[1], reason, each[0] + " at " + door);
                assertTrue(System.nanoTime() - began < 8_000_000_000L, each[0] + " at " + door + " was waited for");
                assertEquals(0, Kept.load(folder).held);
                goesOn(client);
                folder = before;
            }
        }
    }

    @Test
    void whatIsHeldStaysWhenACheckInOrADownloadFails() throws IOException {
        goesOn(client());
        byte[] held = Files.readAllBytes(folder.resolve("client.kept"));
        for (String door : new String[] {"/v1/devices/3/check-ins", "/v1/blobs/"}) {
            for (String kind : new String[] {"500", "garbage", "silent", "closes"}) {
                Client client = client();
                client.enrol();
                fault = kind;
                broken = door;
                assertTrue(reasonOf(client).matches("unknown|json|unreachable"), kind);
                assertArrayEquals(held, Files.readAllBytes(folder.resolve("client.kept")), kind);
                goesOn(client);
            }
        }
    }

    @Test
    void aClockThatIsDaysOffIsSetByTheServers() throws IOException {
        clockChecked = true;
        for (long off : new long[] {DAYS_MS, -DAYS_MS}) {
            clockMs.set(System.currentTimeMillis() + off);
            goesOn(client());
        }
    }

    @Test
    void aClientThatHasAnsweredOftenEnoughGivesUpByItself() throws IOException {
        run("noised", noisedTerms);
        goesOn(client()); // enrolled, and asked once
        Kept kept = Kept.load(folder);
        kept.answers = 1;
        kept.save(folder);
        assertEquals("program", client().visit().reason);
        kept.answers = 2;
        kept.save(folder);
        assertEquals("privacy-spent", client().visit().reason);
        noisedTerms.put("format", 1L); // noise that an older client would pass over
        run("noised", noisedTerms);
        assertEquals("terms", reasonOf(client()));
    }

    @Test
    void aFullDiskLosesNothing() throws IOException {
        Path full = Paths.get("/dev/full");
        assumeTrue(Files.exists(full), "needs Linux");
        Client client = client();
        client.enrol();
        byte[] held = Files.readAllBytes(folder.resolve("client.kept"));
        Path beside = folder.resolve("client.kept.new");
        Files.createSymbolicLink(beside, full); // what is written there finds no space left on the device
        IOException nowhere = assertThrows(IOException.class, client::visit);
        assertTrue(nowhere.getMessage().contains("space"), nowhere.getMessage());
        assertArrayEquals(held, Files.readAllBytes(folder.resolve("client.kept")));
        Files.delete(beside);
        goesOn(client);
    }
}
