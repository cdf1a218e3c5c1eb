package flmobile.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import flmobile.core.Hashes;
import java.security.KeyFactory;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Against the JDK's own Ed25519, which phones lack, and RFC 8032. */
class Ed25519Test {
    private static byte[] bytes(String hex, byte[] more) {
        byte[] out = new byte[hex.length() / 2 + more.length];
        for (int i = 0; i < hex.length() / 2; i++) {
            out[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
        }
        System.arraycopy(more, 0, out, hex.length() / 2, more.length);
        return out;
    }

    @Test
    void signsAsTheJdkDoes() throws Exception {
        Random random = new Random(7);
        KeyFactory factory = KeyFactory.getInstance("Ed25519");
        for (int n = 0; n < 50; n++) {
            byte[] seed = new byte[32];
            random.nextBytes(seed);
            byte[] text = new byte[random.nextInt(200)];
            random.nextBytes(text);
            Ed25519 ours = new Ed25519(seed);
            Signature theirs = Signature.getInstance("Ed25519");
            byte[] secret = bytes("302e020100300506032b657004220420", seed);
            theirs.initSign(factory.generatePrivate(new PKCS8EncodedKeySpec(secret)));
            theirs.update(text);
            assertArrayEquals(theirs.sign(), ours.sign(text));
            theirs.initVerify(factory.generatePublic(
                    new X509EncodedKeySpec(bytes("302a300506032b6570032100", ours.publicKey()))));
            theirs.update(text);
            assertTrue(theirs.verify(ours.sign(text)));
        }
    }

    @Test
    void firstVectorOfTheRfc() {
        byte[] seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", new byte[0]);
        String key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assertEquals(key, Hashes.hex(new Ed25519(seed).publicKey()));
    }

    @Test
    void sevenLinesAreSigned() {
        byte[] lines = Ed25519.message("ab", "GET", "/v1", -1, 5, new byte[0]);
        String text = new String(lines, java.nio.charset.StandardCharsets.UTF_8);
        assertTrue(text.startsWith("fl-mobile/1\nab\nGET\n/v1\n-\n5\ne3b0c44298fc1c14"), text);
    }
}
