package flmobile.privacy;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import flmobile.Shared;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Noise is Python's to the bit, and of its law. */
class LocalNoiseTest {
    private static byte[] bytes(String hex) {
        byte[] out = new byte[hex.length() / 2];
        for (int i = 0; i < out.length; i++) {
            out[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
        }
        return out;
    }

    private static LocalNoise noise(String told) {
        return LocalNoise.read(Json.object(told.replace('\'', '"').getBytes(StandardCharsets.UTF_8)));
    }

    @Test
    void noiseIsPythonsToTheBit() throws Exception {
        Map<String, Object> specs = Json.object(Shared.json("tests/android_stub/vectors.json"), "specs");
        byte[] text = java.nio.file.Files.readAllBytes(Shared.path("tests/android_stub/noise.json"));
        List<?> rows = Json.list(Json.parse(text));
        assertEquals(12, rows.size());
        for (Object each : rows) {
            Map<String, Object> row = Json.object(each);
            Spec spec = Shared.spec(Json.object(specs, (String) row.get("spec")).get("tensors"));
            float[] update = Shared.drawn(spec, (String) row.get("pattern"), (Long) row.get("key"));
            float[] left = LocalNoise.read(Json.object(row, "noise"))
                    .noised(update, bytes((String) row.get("secret")), (String) row.get("run"), (Long) row.get("round"));
            assertEquals(row.get("digest"), Shared.digest(left), row.toString());
        }
    }

    @Test
    void theKeystreamIsThatOfRfc8439() {
        ChaCha20 stream = new ChaCha20(new byte[32]); // appendix A.1, test vectors 1 and 2
        assertEquals("76b8e0ada0f13d90", Hashes.hex(littleEndian(stream.next())));
        assertEquals("405d6ae55386bd28", Hashes.hex(littleEndian(stream.next())));
        for (int i = 2; i < 8; i++) {
            stream.next();
        }
        assertEquals("9f07e7be5551387a", Hashes.hex(littleEndian(stream.next())));
    }

    private static byte[] littleEndian(long number) {
        byte[] out = new byte[8];
        for (int i = 0; i < 8; i++) {
            out[i] = (byte) (number >>> 8 * i);
        }
        return out;
    }

    @Test
    void drawsAreOfTheirLaw() {
        DiscreteGaussian small = new DiscreteGaussian(3, new ChaCha20(Hashes.sha256(new byte[] {1})));
        int draws = 200_000;
        int[] counts = new int[31];
        for (int i = 0; i < draws; i++) {
            counts[(int) Math.max(0, Math.min(30, small.next() + 15))]++;
        }
        double whole = 0;
        for (int x = -40; x <= 40; x++) {
            whole += Math.exp(-x * x / 18.0);
        }
        double chi = 0;
        for (int x = -9; x <= 9; x++) {
            double expected = draws * Math.exp(-x * x / 18.0) / whole;
            chi += (counts[x + 15] - expected) * (counts[x + 15] - expected) / expected;
        }
        assertEquals(19, chi, 30, "χ² of 19 values"); // the stream is fixed: it passes always or never
    }

    @Test
    void theSameUpdateGetsTheSameNoiseAndAnyOtherAnother() {
        LocalNoise noise = noise("{'clip_norm': 1.0, 'noise_multiplier': 1.0, 'answers': 3}");
        float[] zeros = new float[64];
        float[] one = zeros.clone();
        one[5] = 0.25f;
        byte[] secret = new byte[32];
        assertArrayEquals(noise.noised(zeros, secret, "a", 1), noise.noised(zeros, secret, "a", 1));
        float[][] others = {
            noise.noised(one, secret, "a", 1), noise.noised(zeros, secret, "a", 2), noise.noised(zeros, secret, "b", 1),
            noise.noised(zeros, Hashes.sha256(secret), "a", 1)
        };
        float[] base = noise.noised(zeros, secret, "a", 1);
        for (float[] other : others) {
            for (int i = 0; i < base.length; i++) {
                assertEquals(false, base[i] == other[i] || base[i] == 0);
            }
        }
    }

    @Test
    void termsThatAskForTooLittleAreRefused() {
        for (String wrong : new String[] {
            "{'clip_norm': 1.0, 'noise_multiplier': 0.1, 'answers': 3}", "{'clip_norm': 0.0, 'noise_multiplier': 1.0, 'answers': 3}",
            "{'clip_norm': 1.0, 'noise_multiplier': 1.0, 'answers': 0}", "{'clip_norm': 1.0, 'answers': 3}"
        }) {
            assertThrows(WireException.class, () -> noise(wrong), wrong);
        }
    }
}
