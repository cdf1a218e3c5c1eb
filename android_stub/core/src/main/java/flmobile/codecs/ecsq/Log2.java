package flmobile.codecs.ecsq;

/**
 * Logarithms to base 2 that are right to the last bit in all but a few of 10^5 cases, and exact for powers of two. The
 * encoder's choices compare sums of them; Java has none of its own.
 */
final class Log2 {
    private static final double SPLIT = 134217729.0;
    private static final double LOG2_E_HIGH = 1.4426950408889634;
    private static final double LOG2_E_LOW = 2.0355273740931033e-17;
    private static final int KEPT = 1 << 12;
    private static final double[] WHOLE = new double[KEPT];

    static {
        for (int i = 1; i < KEPT; i++) {
            WHOLE[i] = compute(i);
        }
    }

    private Log2() {}

    /** Returns {@code log2(x)} of a normal number above 0. */
    static double of(double x) {
        int whole = (int) x;
        return x == whole && whole < KEPT && whole > 0 ? WHOLE[whole] : compute(x);
    }

    /** Returns {@code x·log2(x)}, 0 for 0 and 1. */
    static double xLogX(long x) {
        return x > 1 ? x * of(x) : 0.0;
    }

    /** {@code log2(2^e·m) = e + 2·log2(e)·(s + s³/3 + s⁵/5 + …)} with {@code s = (m − 1)/(m + 1)}, |s| < 0.172. */
    private static double compute(double x) {
        int exponent = Math.getExponent(x);
        double m = Math.scalb(x, -exponent);
        if (m > 1.4142135623730951) {
            m /= 2;
            exponent++;
        }
        if (m == 1) {
            return exponent;
        }
        double numerator = m - 1; // exact
        double denominator = m + 1;
        double denominatorLow = m - (denominator - 1);
        double s = numerator / denominator;
        double product = s * denominator;
        double rest = numerator - product - productError(s, denominator, product) - s * denominatorLow;
        double sLow = rest / denominator;
        double square = s * s;
        double tail = 0;
        for (int k = 25; k >= 3; k -= 2) {
            tail = tail * square + 1.0 / k;
        }
        double cubic = s * square * tail; // of relative weight 0.01: float64 is enough, but not for its sum with s
        double high = s + cubic;
        double low = cubic - (high - s) + sLow;
        high *= 2;
        low *= 2;
        double value = high * LOG2_E_HIGH;
        double valueLow = productError(high, LOG2_E_HIGH, value) + high * LOG2_E_LOW + low * LOG2_E_HIGH;
        double sum = exponent + value;
        double sumLow = Math.abs(exponent) >= Math.abs(value) ? value - (sum - exponent) : exponent - (sum - value);
        return sum + (sumLow + valueLow);
    }

    /** Returns {@code a·b − product} exactly (Dekker, Numer. Math. 1971). */
    private static double productError(double a, double b, double product) {
        double c = SPLIT * a;
        double aHigh = c - (c - a);
        double aLow = a - aHigh;
        c = SPLIT * b;
        double bHigh = c - (c - b);
        double bLow = b - bHigh;
        return aHigh * bHigh - product + aHigh * bLow + aLow * bHigh + aLow * bLow;
    }
}
