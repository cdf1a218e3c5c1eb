package flmobile.privacy;

import flmobile.core.Writer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Keys for one purpose each: HKDF-SHA-256 (RFC 5869) as {@code fl_mobile/privacy/keys.py} calls it. */
final class Keys {
    private static final int BYTES = 32;

    private Keys() {}

    /** Returns 32 bytes for one purpose. */
    static byte[] derive(byte[] key, byte[]... purpose) {
        Writer info = new Writer().bytes("fl-mobile".getBytes(StandardCharsets.UTF_8));
        for (byte[] part : purpose) {
            for (int shift = 24; shift >= 0; shift -= 8) {
                info.u8(part.length >>> shift);
            }
            info.bytes(part);
        }
        return hmac(hmac(new byte[BYTES], key), info.u8(1).toBytes());
    }

    static byte[] part(String text) {
        return ("str:" + text).getBytes(StandardCharsets.UTF_8);
    }

    static byte[] part(long number) {
        return ("int:" + number).getBytes(StandardCharsets.UTF_8);
    }

    static byte[] part(byte[] bytes) {
        return new Writer().bytes("bytes:".getBytes(StandardCharsets.UTF_8)).bytes(bytes).toBytes();
    }

    private static byte[] hmac(byte[] key, byte[] data) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256"); // in every Java and every Android
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            return mac.doFinal(data);
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException("HmacSHA256 is missing", impossible);
        }
    }
}
