package flmobile.core;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** What Python's docstrings promise. */
class CoreTest {
    @Test
    void fingerprintIsThatOfThePythonDocstring() {
        Spec spec = new Spec(Arrays.asList(
                new TensorSpec("dense/kernel", new int[] {2, 3}, true), new TensorSpec("dense/bias", new int[] {3}, true)));
        assertEquals(0x34d1e6c975285cc8L, spec.fingerprint());
    }

    @Test
    void splitMixAndSeeds() {
        assertEquals(0xe220a8397b1dcdafL, Hashes.stream(0, 0));
        // python -c "from fl_mobile.seeds import seed_for; print(seed_for(2**64 - 1, 'codec'))"
        BigInteger seed = BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE);
        assertEquals("7458653285741712170", Long.toUnsignedString(Hashes.seedFor(seed, "codec")));
    }

    @Test
    void jsonIsWrittenAsItIsRead() {
        String text = "{\"a\":[1,-2,0.5,1.0E-7,true,false,null,\"\\\"\\\\é\\u0001\"],\"b\":{},\"c\":[]}";
        assertEquals(text, Json.write(Json.parse(text.getBytes(StandardCharsets.UTF_8))));
    }

    @Test
    void whatIsNoJsonIsRefused() {
        String deep = new String(new char[10_000]).replace('\0', '[');
        for (String text : new String[] {"", "{", "[1,]", "{\"a\":}", "01", "1e999", "NaN", "\"\\x\"", "\"\n\"", "1 2", deep}) {
            byte[] body = text.getBytes(StandardCharsets.UTF_8);
            assertEquals("json", assertThrows(WireException.class, () -> Json.parse(body), text).reason());
        }
        assertThrows(WireException.class, () -> Json.parse(new byte[] {'"', (byte) 0xC3, '"'}));
    }
}
