package flmobile.core;

import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** SHA-256, and what is keyed by it. */
public final class Hashes {
    private static final char[] DIGITS = "0123456789abcdef".toCharArray();

    private Hashes() {}

    /** Returns the SHA-256 of some bytes, {@code byte[32]}. */
    public static byte[] sha256(byte[] data) {
        return digest("SHA-256").digest(data);
    }

    /** Returns a digest; those that are asked for are in every Java and every Android. */
    static MessageDigest digest(String name) {
        try {
            return MessageDigest.getInstance(name);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(name + " is missing", impossible);
        }
    }

    /** Returns bytes as hexadecimal digits. */
    public static String hex(byte[] data) {
        StringBuilder text = new StringBuilder(2 * data.length);
        for (byte each : data) {
            text.append(DIGITS[each >> 4 & 15]).append(DIGITS[each & 15]);
        }
        return text.toString();
    }

    /** Returns the first 8 bytes of a SHA-256, big endian. */
    static long headOf(byte[] data) {
        byte[] digest = sha256(data);
        long head = 0;
        for (int i = 0; i < 8; i++) {
            head = head << 8 | digest[i] & 0xFF;
        }
        return head;
    }

    /**
     * Returns a 64-bit seed for one purpose, {@code fl_mobile.seeds.seed_for}.
     *
     * @param seed unsigned, of any size
     * @param purpose e.g. {@code codec}
     */
    public static long seedFor(BigInteger seed, String purpose) {
        return headOf(("int:" + seed + "/str:" + purpose).getBytes(StandardCharsets.UTF_8));
    }

    /** Returns the SplitMix64 finaliser, a bijection of 64 bits (Steele, Lea and Flood, OOPSLA 2014). */
    public static long mixed(long z) {
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    /** Returns what SplitMix64 gives at a position of the stream from a state. */
    public static long stream(long start, long position) {
        return mixed(start + (position + 1) * 0x9E3779B97F4A7C15L);
    }
}
