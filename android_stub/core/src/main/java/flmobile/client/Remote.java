package flmobile.client;

import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.WireException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Supplier;

/** A client's connection to a coordinator: signed requests, tried again with jitter, every answer checked. */
final class Remote {
    private static final List<Integer> AGAIN = Arrays.asList(408, 429, 500, 502, 503, 504, 507);
    private static final Map<String, String> NONE = Collections.emptyMap();

    private final Http http;
    private final Ed25519 key;
    private final Patience patience;
    private final Environment environment;
    private final Random random = new Random();
    String run = "";
    long device = -1;
    private long offMs;
    private long lastMs;

    Remote(Http http, Ed25519 key, Patience patience, Environment environment) {
        this.http = http;
        this.key = key;
        this.patience = patience;
        this.environment = environment;
    }

    /** Status and answer, whatever it is. */
    static final class Told {
        final int status;
        final Map<String, Object> answer;

        Told(int status, Map<String, Object> answer) {
            this.status = status;
            this.answer = answer;
        }

        String reason() {
            Object reason = answer.get("reason");
            return reason instanceof String ? (String) reason : "unknown";
        }
    }

    /** Returns what an unsigned question is answered with. */
    Map<String, Object> get(String path) {
        return json("GET", path, () -> NONE, null, false).answer;
    }

    /** Posts a signed message; a clock that is refused is set by the server's, a time that came twice is drawn anew. */
    Map<String, Object> signed(String path, Map<String, Object> value) {
        byte[] body = Json.write(value).getBytes(StandardCharsets.UTF_8);
        for (int failed = 0; ; failed++) {
            Told told = json("POST", path, () -> signature(path, body), body, true);
            if (told.status < 300) {
                return told.answer;
            }
            Object theirs = told.answer.get("server_time_ms");
            boolean clock = told.reason().equals("clock") && theirs instanceof Long;
            if (failed + 1 >= patience.tries || !(clock || told.reason().equals("replayed"))) {
                throw refused(told.status, told.answer, path);
            }
            if (clock && failed > 0) {
                throw refused(told.status, told.answer, path);
            }
            if (clock) {
                offMs = (Long) theirs - environment.clockMs();
                lastMs = 0;
            }
        }
    }

    private Map<String, String> signature(String path, byte[] body) {
        lastMs = Math.max(lastMs + 1, environment.clockMs() + offMs);
        byte[] signature = key.sign(Ed25519.message(run, "POST", path, device, lastMs, body));
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put("FL-Time", Long.toString(lastMs));
        headers.put("FL-Signature", Base64.getEncoder().encodeToString(signature));
        headers.put("Content-Type", "application/json");
        return headers;
    }

    /**
     * Returns a blob, going on where a broken connection stopped, the process's last one too; its hash is checked before
     * anybody sees it.
     *
     * @param part where what has come of it is kept
     */
    byte[] fetch(Blob blob, Path part) throws IOException {
        Files.createDirectories(part.getParent());
        String path = "/v1/blobs/" + blob.sha256;
        int failed = 0;
        for (boolean asked = false; ; asked = true) {
            byte[] data = Files.exists(part) ? Files.readAllBytes(part) : new byte[0];
            if (data.length >= blob.bytes) {
                if (data.length == blob.bytes && Hashes.hex(Hashes.sha256(data)).equals(blob.sha256)) {
                    return data;
                }
                Files.deleteIfExists(part);
                failed = asked ? failed(failed, path, "the bytes that came have another hash") : failed;
                data = new byte[0];
            }
            Map<String, String> range = Collections.singletonMap("Range", "bytes=" + data.length + "-");
            Http.Response response;
            try {
                response = http.ask("GET", path, data.length > 0 ? range : NONE, null, blob.bytes);
            } catch (IOException broken) {
                failed = failed(failed, path, broken.toString());
                continue;
            }
            if (response.status != 200 && response.status != 206) {
                failed = raiseOrWait(response.status, response.body, failed, path);
                continue;
            }
            boolean append = response.status == 206;
            Files.write(part, response.body, StandardOpenOption.CREATE, StandardOpenOption.WRITE,
                    append ? StandardOpenOption.APPEND : StandardOpenOption.TRUNCATE_EXISTING);
            long had = append ? data.length : 0;
            boolean whole = had + response.body.length >= blob.bytes;
            if (!whole && (had < data.length || response.body.length < http.leastBytes())) {
                failed = failed(failed, path, "only " + response.body.length + " bytes came");
            }
        }
    }

    /** Uploads a packet, going on where it stopped; returns status and answer. */
    Told send(String path, byte[] packet, String token) {
        Map<String, String> plain = authorized(token);
        plain.put("Repr-Digest", "sha-256=:" + Base64.getEncoder().encodeToString(Hashes.sha256(packet)) + ":");
        int at = 0;
        int failed = 0;
        while (true) {
            Map<String, String> headers = new LinkedHashMap<>(plain);
            headers.put("Content-Type", "application/octet-stream");
            if (at > 0) {
                headers.put("Content-Range", "bytes " + at + "-" + (packet.length - 1) + "/" + packet.length);
            }
            Http.Response response;
            try {
                byte[] body = Arrays.copyOfRange(packet, at, packet.length);
                response = http.ask("PUT", path, headers, body, 0);
            } catch (IOException broken) {
                failed = failed(failed, path, broken.toString());
                at = received(path, plain, packet.length);
                continue;
            }
            if (AGAIN.contains(response.status) || response.cut) {
                failed = response.cut
                        ? failed(failed, path, "the connection ended")
                        : raiseOrWait(response.status, response.body, failed, path);
                at = received(path, plain, packet.length);
                continue;
            }
            Told told = new Told(response.status, Json.object(response.body));
            if (told.status == 400 && told.reason().equals("digest") && failed + 1 < patience.tries) {
                at = 0; // damaged on its way
                failed++;
            } else if (told.status == 202) {
                at = (int) Json.whole(told.answer, "received", 0, packet.length - 1);
                failed = failed(failed, path, "the server keeps asking for more");
            } else {
                return told;
            }
        }
    }

    /** Asks about an upload, or gives it up. */
    Told ask(String method, String path, String token) {
        return json(method, path, () -> authorized(token), null, true);
    }

    private static Map<String, String> authorized(String token) {
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put("Authorization", "Bearer " + token);
        return headers;
    }

    /** Returns how much of an upload is there, as far as that can be learnt now. */
    private int received(String path, Map<String, String> headers, int whole) {
        try {
            Http.Response response = http.ask("GET", path, headers, null, 0);
            if (response.status == 202) {
                return (int) Json.whole(Json.object(response.body), "received", 0, whole - 1);
            }
        } catch (IOException | WireException unknown) {
            return 0;
        }
        return 0;
    }

    private Told json(String method, String path, Supplier<Map<String, String>> headers, byte[] body, boolean all) {
        int failed = 0;
        while (true) {
            Http.Response response;
            try {
                response = http.ask(method, path, headers.get(), body, 0);
            } catch (IOException broken) {
                failed = failed(failed, path, broken.toString());
                continue;
            }
            if (response.cut) {
                failed = failed(failed, path, "the connection ended");
            } else if (response.status < 300) {
                return new Told(response.status, Json.object(response.body));
            } else if (all && !AGAIN.contains(response.status)) {
                return new Told(response.status, lenient(response.body));
            } else {
                failed = raiseOrWait(response.status, response.body, failed, path);
            }
        }
    }

    private static Map<String, Object> lenient(byte[] body) {
        try {
            return Json.object(body);
        } catch (WireException notOurs) {
            return Collections.emptyMap();
        }
    }

    private int failed(int failed, String what, String why) {
        if (failed + 1 >= patience.tries) {
            String message = http.base() + ", " + what + ": no answer in " + (failed + 1) + " tries (" + why + ")";
            throw new ServerException(0, "unreachable", message);
        }
        environment.rest(patience.waitAfter(failed + 1, random.nextDouble()));
        return failed + 1;
    }

    private int raiseOrWait(int status, byte[] body, int failed, String what) {
        if (!AGAIN.contains(status) || failed + 1 >= patience.tries) {
            throw refused(status, lenient(body), what);
        }
        environment.rest(patience.waitAfter(failed + 1, random.nextDouble()));
        return failed + 1;
    }

    static ServerException refused(int status, Map<String, Object> problem, String what) {
        Told told = new Told(status, problem);
        Object detail = problem.get("detail");
        String message = what + ": the coordinator answers " + status + " " + told.reason();
        return new ServerException(status, told.reason(), message + (detail == null ? "" : ": " + detail));
    }
}
