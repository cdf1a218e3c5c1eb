package flmobile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import flmobile.Shared;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A program that does not do what was agreed is refused before native code sees a byte of it. */
class ContractTest {
    private byte[] program;
    private Map<String, Object> contract;
    private Map<String, Object> plan;

    @BeforeEach
    void read() throws IOException {
        program = Files.readAllBytes(Shared.path("tests/android_stub/training/train.tflite"));
        contract = Shared.json("tests/android_stub/training/contract.json");
        plan = new LinkedHashMap<>();
        plan.put("epochs", 1L);
        plan.put("batch_size", 10L);
        plan.put("learning_rate", 0.1);
        plan.put("optimizer", "sgd");
        plan.put("momentum", 0.9);
        plan.put("loss", "sparse-categorical-crossentropy");
        plan.put("from_logits", true);
        plan.put("proximal_mu", 0.0);
        plan.put("clip_gradient_norm", 0.0);
        plan.put("shuffle", true);
        plan.put("trained", Collections.emptyList());
        plan.put("keep_zeros", false);
        plan.put("fake_quant", false);
        plan.put("label_smoothing", 0.0);
        plan.put("class_weights", Collections.emptyList());
        plan.put("task", "classification");
    }

    private static Spec spec(String path, int... shape) {
        TensorSpec kernel = new TensorSpec(path, shape, true);
        return new Spec(Arrays.asList(kernel, new TensorSpec("dense/bias", new int[] {10}, true)));
    }

    private String reason(Spec whole, boolean pulled) {
        byte[] json = Json.write(contract).getBytes(StandardCharsets.UTF_8);
        return assertThrows(WireException.class, () -> Contract.check(json, program, whole, FitPlan.read(plan), pulled)).reason();
    }

    private Spec agreed() {
        Object first = Json.list(contract.get("weights")).get(0);
        Object second = Json.list(contract.get("weights")).get(1);
        TensorSpec kernel = new TensorSpec(Json.text(Json.object(first), "path"), new int[] {64, 10}, true);
        return new Spec(Arrays.asList(kernel, new TensorSpec(Json.text(Json.object(second), "path"), new int[] {10}, true)));
    }

    @Test
    void whatWasAgreedPasses() {
        byte[] json = Json.write(contract).getBytes(StandardCharsets.UTF_8);
        assertEquals(64, Contract.check(json, program, agreed(), FitPlan.read(plan), false).exampleValues);
    }

    @Test
    void cutAndSwappedProgramsAreRefused() {
        byte[] whole = program;
        for (int length : new int[] {0, 1, whole.length / 2, whole.length - 1}) {
            program = Arrays.copyOf(whole, length);
            assertEquals("program", reason(agreed(), false), length + " bytes");
        }
        for (int at = 0; at < whole.length; at += 997) {
            program = whole.clone();
            program[at] ^= 1;
            assertEquals("program", reason(agreed(), false), "byte " + at);
        }
    }

    @Test
    void anotherModelIsRefused() {
        assertEquals("program", reason(spec("other/kernel", 64, 10), false));
        assertEquals("program", reason(spec(agreed().tensors().get(0).path, 10, 64), false));
        assertEquals("program", reason(new Spec(agreed().tensors().subList(0, 1)), false));
    }

    @Test
    void anotherPlanIsRefused() {
        assertEquals("program", reason(agreed(), true), "it takes no correction");
        Object[][] others = {
            {"optimizer", "adam"}, {"loss", "mse"}, {"batch_size", 11L}, {"clip_gradient_norm", 1.0}, {"proximal_mu", 0.1},
            {"label_smoothing", 0.1}, {"class_weights", Collections.singletonList(2.0)}
        };
        for (Object[] other : others) {
            Object before = plan.put((String) other[0], other[1]);
            assertEquals("program", reason(agreed(), false), (String) other[0]);
            plan.put((String) other[0], before);
        }
        plan.put("trained", Collections.singletonList("head"));
        assertEquals("plan", reason(agreed(), false));
    }

    @Test
    void aContractOfOtherFormIsRefused() {
        contract.put("format", 2L);
        assertEquals("program", reason(agreed(), false));
        contract.put("format", 1L);
        contract.remove("sha256");
        assertEquals("json", reason(agreed(), false));
        contract.put("sha256", Hashes.hex(new byte[32]));
        assertEquals("program", reason(agreed(), false));
    }
}
