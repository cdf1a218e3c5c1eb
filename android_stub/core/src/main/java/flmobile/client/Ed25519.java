package flmobile.client;

import flmobile.core.Hashes;
import java.math.BigInteger;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;

/**
 * Ed25519 signatures (RFC 8032). Android has none of its own at API 26: its keystore signs Ed25519 from API 33 on, and
 * Java has them from 15 on. This one is not constant in time: who can measure a signature on the device itself may learn
 * of the key. It signs check-ins, which no one else asks for.
 */
public final class Ed25519 {
    public static final int KEY_BYTES = 32;
    private static final BigInteger TWO = BigInteger.valueOf(2);
    private static final BigInteger P = TWO.pow(255).subtract(BigInteger.valueOf(19));
    private static final BigInteger ORDER =
            TWO.pow(252).add(new BigInteger("27742317777372353535851937790883648493"));
    private static final BigInteger D =
            BigInteger.valueOf(-121665).multiply(BigInteger.valueOf(121666).modInverse(P)).mod(P);
    private static final BigInteger BASE_Y = BigInteger.valueOf(4).multiply(BigInteger.valueOf(5).modInverse(P)).mod(P);
    private static final BigInteger BASE_X =
            new BigInteger("15112221349535400772501151409588531511454012693041857206046113283949847762202");
    /** Extended coordinates: X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z. */
    private static final BigInteger[] BASE = {BASE_X, BASE_Y, BigInteger.ONE, BASE_X.multiply(BASE_Y).mod(P)};

    private final BigInteger scalar;
    private final byte[] prefix;
    private final byte[] publicKey;

    /**
     * @param seed 32 secret bytes that never leave the device
     */
    public Ed25519(byte[] seed) {
        byte[] hash = sha512(seed);
        byte[] low = Arrays.copyOf(hash, 32);
        low[0] &= (byte) 248;
        low[31] = (byte) (low[31] & 127 | 64);
        scalar = number(low);
        prefix = Arrays.copyOfRange(hash, 32, 64);
        publicKey = encoded(times(scalar));
    }

    /** Returns the half that enrolment sends, {@code byte[32]}. */
    public byte[] publicKey() {
        return publicKey.clone();
    }

    /** Returns the signature, {@code byte[64]}; the same text always has the same. */
    public byte[] sign(byte[] text) {
        BigInteger r = number(sha512(prefix, text)).mod(ORDER);
        byte[] point = encoded(times(r));
        BigInteger k = number(sha512(point, publicKey, text)).mod(ORDER);
        byte[] out = Arrays.copyOf(point, 64);
        System.arraycopy(bytes(r.add(k.multiply(scalar)).mod(ORDER)), 0, out, 32, 32);
        return out;
    }

    private static byte[] sha512(byte[]... parts) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-512");
            for (byte[] part : parts) {
                digest.update(part);
            }
            return digest.digest();
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException("SHA-512 is missing", impossible);
        }
    }

    private static BigInteger[] times(BigInteger scalar) {
        BigInteger[] sum = {BigInteger.ZERO, BigInteger.ONE, BigInteger.ONE, BigInteger.ZERO};
        for (int bit = 255; bit >= 0; bit--) {
            sum = plus(sum, sum);
            if (scalar.testBit(bit)) {
                sum = plus(sum, BASE);
            }
        }
        return sum;
    }

    /** RFC 8032, section 5.1.4; the same formulas add and double. */
    private static BigInteger[] plus(BigInteger[] a, BigInteger[] b) {
        BigInteger p = a[1].subtract(a[0]).multiply(b[1].subtract(b[0])).mod(P);
        BigInteger q = a[1].add(a[0]).multiply(b[1].add(b[0])).mod(P);
        BigInteger t = a[3].multiply(TWO).multiply(D).mod(P).multiply(b[3]).mod(P);
        BigInteger z = a[2].multiply(TWO).multiply(b[2]).mod(P);
        BigInteger e = q.subtract(p);
        BigInteger f = z.subtract(t);
        BigInteger g = z.add(t);
        BigInteger h = q.add(p);
        return new BigInteger[] {
            e.multiply(f).mod(P), g.multiply(h).mod(P), f.multiply(g).mod(P), e.multiply(h).mod(P)
        };
    }

    private static byte[] encoded(BigInteger[] point) {
        BigInteger inverse = point[2].modInverse(P);
        byte[] out = bytes(point[1].multiply(inverse).mod(P));
        out[31] |= (byte) (point[0].multiply(inverse).mod(P).testBit(0) ? 128 : 0);
        return out;
    }

    private static BigInteger number(byte[] littleEndian) {
        byte[] turned = new byte[littleEndian.length];
        for (int i = 0; i < turned.length; i++) {
            turned[i] = littleEndian[turned.length - 1 - i];
        }
        return new BigInteger(1, turned);
    }

    private static byte[] bytes(BigInteger number) {
        byte[] out = new byte[32];
        for (int i = 0; i < 256; i++) {
            out[i >> 3] |= (byte) (number.testBit(i) ? 1 << (i & 7) : 0);
        }
        return out;
    }

    /** Returns what a request is signed over: seven lines. */
    static byte[] message(String run, String method, String path, long device, long timeMs, byte[] body) {
        String who = device < 0 ? "-" : Long.toString(device);
        String hash = Hashes.hex(Hashes.sha256(body));
        String lines = String.join("\n", "fl-mobile/1", run, method, path, who, Long.toString(timeMs), hash);
        return lines.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }
}
