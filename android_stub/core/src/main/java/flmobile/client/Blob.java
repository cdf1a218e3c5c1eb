package flmobile.client;

import flmobile.core.Json;
import java.util.LinkedHashMap;
import java.util.Map;

/** Bytes to fetch, by what they are: nobody can swap them on the way. */
final class Blob {
    private static final long MOST_BYTES = 1L << 30;
    final String sha256;
    final long bytes;

    private Blob(Map<String, Object> told) {
        sha256 = Json.sha256(told, "sha256");
        bytes = Json.whole(told, "bytes", 0, MOST_BYTES);
    }

    static Blob read(Object told) {
        return new Blob(Json.object(told));
    }

    /** Reads names and what they stand for. */
    static Map<String, Blob> readAll(Map<String, Object> told) {
        Map<String, Blob> out = new LinkedHashMap<>();
        for (Map.Entry<String, Object> entry : told.entrySet()) {
            out.put(entry.getKey(), read(entry.getValue()));
        }
        return out;
    }
}
