package org.teavm.classlib.java.security;

/**
 * {@code java.security.MessageDigest} as far as packets need it: SHA-256 (FIPS 180-4) of whole messages. TeaVM has none, and
 * finds this one by its name; a browser's own answers later, which Java's interface cannot wait for.
 */
public final class TMessageDigest {
    private static final int[] K = new int[64];
    private static final int[] START = new int[8];

    static { // the first 32 bits of the fractional parts of cube and square roots of the first primes
        int found = 0;
        for (int n = 2; found < 64; n++) {
            boolean prime = true;
            for (int d = 2; d * d <= n; d++) {
                prime &= n % d != 0;
            }
            if (prime) {
                K[found] = (int) (long) (Math.cbrt(n) % 1 * 4294967296.0);
                if (found < 8) {
                    START[found] = (int) (long) (Math.sqrt(n) % 1 * 4294967296.0);
                }
                found++;
            }
        }
    }

    private TMessageDigest() {}

    public static TMessageDigest getInstance(String name) {
        if (!name.equals("SHA-256")) {
            throw new IllegalArgumentException(name);
        }
        return new TMessageDigest();
    }

    public byte[] digest(byte[] data) {
        int blocks = (data.length + 8) / 64 + 1;
        int[] h = START.clone();
        int[] w = new int[64];
        for (int block = 0; block < blocks; block++) {
            for (int i = 0; i < 16; i++) {
                w[i] = 0;
                for (int at = 64 * block + 4 * i; at < 64 * block + 4 * i + 4; at++) {
                    w[i] = w[i] << 8 | (at < data.length ? data[at] & 0xFF : at == data.length ? 0x80 : 0);
                }
            }
            if (block == blocks - 1) {
                w[14] = data.length >>> 29;
                w[15] = data.length << 3;
            }
            compress(h, w);
        }
        byte[] out = new byte[32];
        for (int i = 0; i < 32; i++) {
            out[i] = (byte) (h[i / 4] >>> 24 - 8 * (i % 4));
        }
        return out;
    }

    private static void compress(int[] h, int[] w) {
        for (int i = 16; i < 64; i++) {
            int s0 = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >>> 3;
            int s1 = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >>> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        int[] v = h.clone();
        for (int i = 0; i < 64; i++) {
            int s1 = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25);
            int t1 = v[7] + s1 + (v[4] & v[5] ^ ~v[4] & v[6]) + K[i] + w[i];
            int s0 = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22);
            int t2 = s0 + (v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]);
            System.arraycopy(v, 0, v, 1, 7);
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++) {
            h[i] += v[i];
        }
    }

    private static int turned(int value, int by) {
        return value >>> by | value << 32 - by;
    }
}
