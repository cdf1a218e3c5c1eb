package flmobile.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import flmobile.Shared;
import flmobile.core.Json;
import flmobile.core.PythonText;
import flmobile.core.Spec;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Downloads that Python made are read to the bit; from whatever is damaged only one exception comes. */
class DownloadVectorsTest {
    private final Map<String, Object> shared = Shared.json("tests/android_stub/rounds.json");

    private static Agreement agreement(Map<String, Object> told) {
        Map<String, Object> terms = Json.object(told, "terms");
        Spec spec = Shared.spec(terms.get("spec"));
        byte[] first = new Writer().floats(Shared.drawn(spec, "plain", 50)).toBytes();
        return Agreement.read(Json.write(terms).getBytes(StandardCharsets.UTF_8), first);
    }

    private static byte[] bytes(Map<String, Object> round, String part) {
        return Base64.getDecoder().decode((String) round.get(part));
    }

    private static Map<String, Object> digests(Agreement agreement, Agreement.Decoded decoded) {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("weights", Shared.digest(decoded.weights));
        if (decoded.point != null) {
            Writer point = new Writer();
            for (int t = 0; t < agreement.spec.count(); t++) {
                for (int i = agreement.spec.offset(t); i < agreement.spec.offset(t + 1); i++) {
                    if (agreement.spec.tensors().get(t).trainable) {
                        point.u32(decoded.point[i]);
                    }
                }
            }
            out.put("point", Shared.digest(point.toBytes()));
        }
        if (decoded.prediction != null) {
            out.put("prediction", Shared.digest(decoded.prediction));
        }
        if (decoded.beside != null) {
            out.put("beside", Shared.digest(decoded.beside));
        }
        return out;
    }

    @Test
    void everyDownloadIsReadToTheBit() {
        for (Map.Entry<String, Object> entry : shared.entrySet()) {
            Map<String, Object> told = Json.object(entry.getValue());
            Agreement agreement = agreement(told);
            long held = 0;
            int[] point = null;
            for (Object each : Json.list(told.get("rounds"))) {
                Map<String, Object> round = Json.object(each);
                long version = (Long) round.get("version");
                Agreement.Decoded decoded = agreement.decode(
                        bytes(round, "model"), bytes(round, "prediction"), bytes(round, "beside"), version, held, point);
                assertEquals(round.get("digests"), digests(agreement, decoded), entry.getKey() + ", version " + version);
                held = version;
                point = decoded.point;
            }
        }
    }

    @Test
    void damagedDownloadsGiveOneException() {
        Random random = new Random(2026);
        for (Map.Entry<String, Object> entry : shared.entrySet()) {
            Map<String, Object> told = Json.object(entry.getValue());
            Agreement agreement = agreement(told);
            Map<String, Object> round = Json.object(Json.list(told.get("rounds")).get(1));
            byte[] whole = bytes(round, "model");
            for (int n = 0; n < 300; n++) {
                byte[] model = n % 3 > 0 ? whole.clone() : java.util.Arrays.copyOf(whole, random.nextInt(whole.length));
                if (n % 3 > 0) {
                    model[random.nextInt(model.length)] ^= (byte) (1 << random.nextInt(8));
                }
                assertThrows(WireException.class, () -> agreement.decode(
                        model, bytes(round, "prediction"), bytes(round, "beside"), 1, 0, null), entry.getKey());
            }
            WireException other = assertThrows(WireException.class, () -> agreement.decode(
                    whole, bytes(round, "prediction"), bytes(round, "beside"), 2, 0, null));
            assertTrue(other.reason().matches("round|truncated"), other.reason()); // pruning may begin in between
        }
    }

    @Test
    void aDeltaFromAVersionThatIsNotHeldIsRefused() {
        Map<String, Object> told = Json.object(shared, "deltas");
        Map<String, Object> third = Json.object(Json.list(told.get("rounds")).get(2));
        Agreement agreement = agreement(told);
        WireException refused = assertThrows(WireException.class, () -> agreement.decode(
                bytes(third, "model"), new byte[0], new byte[0], 3, 2, null));
        assertEquals("base", refused.reason());
        assertTrue(refused.getMessage().contains("does not hold"));
    }

    @Test
    void numbersAreWrittenAsPythonWritesThem() {
        double[] numbers = {0.1, 1e-5, 0.0001, 1.0, 1e16, 123456789012345680.0, 1e15, 2e-44, 5e-324, -2.5, 0.0, 1 / 3.0};
        String[] texts = {
            "0.1", "1e-05", "0.0001", "1.0", "1e+16", "1.2345678901234568e+17", "1000000000000000.0", "2e-44", "5e-324",
            "-2.5", "0.0", "0.3333333333333333"
        };
        for (int i = 0; i < numbers.length; i++) {
            assertEquals(texts[i], PythonText.of(numbers[i]));
        }
    }
}
