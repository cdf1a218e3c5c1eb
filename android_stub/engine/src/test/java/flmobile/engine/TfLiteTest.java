package flmobile.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Reader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** The phone's runtime, on Linux, trains as Python's LiteRT did: {@code tests/android_stub/training.py}. */
class TfLiteTest {
    private static final double MOST = 1e-6;
    private final Path folder = Paths.get(System.getProperty("fl.repository"), "tests", "android_stub", "training");

    private byte[] file(String name) throws IOException {
        return Files.readAllBytes(folder.resolve(name));
    }

    private static ByteBuffer bytes(int count) {
        return ByteBuffer.allocateDirect(count).order(ByteOrder.nativeOrder());
    }

    private static ByteBuffer floats(float... values) {
        ByteBuffer out = bytes(4 * values.length);
        out.asFloatBuffer().put(values);
        return out;
    }

    private static Map<String, ByteBuffer> batch(List<?> inputs, int size, int step) {
        Map<String, ByteBuffer> all = new HashMap<>();
        ByteBuffer y = bytes(4 * size);
        for (int i = 0; i < size; i++) {
            y.putInt(4 * i, (i * 7 + step) % 10);
        }
        float[] mask = new float[size];
        Arrays.fill(mask, 1);
        all.put("y", y);
        all.put("mask", floats(mask));
        all.put("seed", bytes(4));
        all.put("learning_rate", floats(0.1f));
        Map<String, ByteBuffer> wanted = new HashMap<>();
        for (Object each : inputs) {
            Map<String, Object> port = Json.object(each);
            int values = 1;
            for (Object length : Json.list(port.get("shape"))) {
                values *= ((Long) length).intValue();
            }
            String name = Json.text(port, "name");
            wanted.put(name, name.equals("x") ? pixels(new Philox(step).uniform(values)) : all.get(name));
        }
        return wanted;
    }

    private static ByteBuffer pixels(float[] draws) {
        ByteBuffer out = bytes(draws.length);
        for (int i = 0; i < draws.length; i++) {
            out.put(i, (byte) (int) (draws[i] * 256));
        }
        return out;
    }

    @Test
    void trainsAsLiteRtDoes() throws IOException {
        Map<String, Object> contract = Json.object(file("contract.json"));
        Map<String, Object> replay = Json.object(file("replay.json"));
        int size = (int) Json.whole(contract, "batch_size", 1, 1 << 20);
        List<?> weights = Json.list(contract.get("weights"));
        float[] expected = new Reader(Base64.getDecoder().decode(Json.text(replay, "weights"))).floats(650);
        float[] first = new Philox(99).uniform(expected.length);
        List<?> inputs = null;
        for (Object each : Json.list(contract.get("signatures"))) {
            if (Json.text(Json.object(each), "name").equals("train")) {
                inputs = Json.list(Json.object(each).get("inputs"));
            }
        }
        try (TfLite engine = new TfLite(file("train.tflite"), 1)) {
            Map<String, ByteBuffer> start = new HashMap<>();
            int at = 0;
            for (Object each : weights) {
                int values = 1;
                for (Object length : Json.list(Json.object(each).get("shape"))) {
                    values *= ((Long) length).intValue();
                }
                float[] some = Arrays.copyOfRange(first, at, at + values);
                for (int i = 0; i < values; i++) {
                    some[i] = (some[i] - 0.5f) * 0.125f;
                }
                start.put(Json.text(Json.object(each), "name"), floats(some));
                at += values;
            }
            engine.run("set_weights", start);
            List<?> losses = Json.list(replay.get("losses"));
            for (int step = 0; step < losses.size(); step++) {
                float loss = engine.run("train", batch(inputs, size, step)).get("loss").getFloat(0);
                assertEquals((Double) losses.get(step), loss, MOST, "step " + step);
            }
            Map<String, ByteBuffer> dummy = new HashMap<>();
            dummy.put("dummy", floats(0));
            Map<String, ByteBuffer> after = engine.run("get_weights", dummy);
            at = 0;
            double worst = 0;
            for (Object each : weights) {
                ByteBuffer got = after.get(Json.text(Json.object(each), "name"));
                while (got.hasRemaining()) {
                    worst = Math.max(worst, Math.abs(got.getFloat() - expected[at++]));
                }
            }
            assertEquals(expected.length, at);
            assertTrue(worst <= MOST, "weights differ by " + worst);
        }
    }

    @Test
    void whatIsNoProgramOrNoSignatureIsRefused() throws IOException {
        byte[] program = file("train.tflite");
        for (int length : new int[] {0, 4, 100, program.length / 2}) {
            byte[] cut = Arrays.copyOf(program, length);
            assertThrows(IllegalArgumentException.class, () -> new TfLite(cut, 1), length + " bytes");
        }
        try (TfLite engine = new TfLite(program, 1)) {
            Map<String, ByteBuffer> odd = new HashMap<>();
            odd.put("dummy", floats(0, 0));
            assertThrows(IllegalArgumentException.class, () -> engine.run("get_weights", odd));
            assertThrows(IllegalArgumentException.class, () -> engine.run("nothing", odd));
        }
    }
}
