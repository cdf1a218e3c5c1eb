package flmobile.core;

/** Philox4x64-10 (Salmon et al., SC 2011) as NumPy's {@code Philox(key=key)} gives it, raw bits only. */
public final class Philox {
    private static final long M0 = 0xD2E7470EE14C6C93L;
    private static final long M1 = 0xCA5A826395121157L;
    private static final long W0 = 0x9E3779B97F4A7C15L;
    private static final long W1 = 0xBB67AE8584CAA73BL;

    private final long key;
    private final long[] block = new long[4];
    private long counter;
    private int used = 4;

    public Philox(long key) {
        this.key = key;
    }

    /** Returns the next 64 bits. */
    public long next() {
        if (used == 4) {
            fill();
        }
        return block[used++];
    }

    /** Returns floats in [0, 1): 24 bits of each half of a draw, low half first. */
    public float[] uniform(int count) {
        float[] out = new float[count];
        for (int i = 0; i < count; i += 2) {
            long draw = next();
            out[i] = ((int) draw >>> 8) * 0x1p-24f;
            if (i + 1 < count) {
                out[i + 1] = (int) (draw >>> 40) * 0x1p-24f;
            }
        }
        return out;
    }

    private void fill() {
        counter++;
        long c0 = counter;
        long c1 = 0;
        long c2 = 0;
        long c3 = 0;
        long k0 = key;
        long k1 = 0;
        for (int round = 0; round < 10; round++) {
            long high0 = multiplyHigh(M0, c0);
            long high1 = multiplyHigh(M1, c2);
            long low0 = M0 * c0;
            long low1 = M1 * c2;
            c0 = high1 ^ c1 ^ k0;
            c1 = low1;
            c2 = high0 ^ c3 ^ k1;
            c3 = low0;
            k0 += W0;
            k1 += W1;
        }
        block[0] = c0;
        block[1] = c1;
        block[2] = c2;
        block[3] = c3;
        used = 0;
    }

    /** Returns the high half of an unsigned product; {@code Math.multiplyHigh} is Java 9. */
    private static long multiplyHigh(long a, long b) {
        long aLow = a & 0xFFFFFFFFL;
        long aHigh = a >>> 32;
        long bLow = b & 0xFFFFFFFFL;
        long bHigh = b >>> 32;
        long middle = aHigh * bLow + (aLow * bLow >>> 32);
        long other = aLow * bHigh + (middle & 0xFFFFFFFFL);
        return aHigh * bHigh + (middle >>> 32) + (other >>> 32);
    }
}
