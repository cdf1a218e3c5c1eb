package flmobile.privacy;

/**
 * Draws from the discrete Gaussian on the integers, exactly: only whole numbers are compared (Karney, ACM TOMS 42, 2016); word
 * by word as {@code fl_mobile/kernels/gaussian.py}.
 */
final class DiscreteGaussian {
    static final long LARGEST_SIGMA = 1L << 44;
    private final long sigma;
    private final ChaCha20 words;

    DiscreteGaussian(long sigma, ChaCha20 words) {
        this.sigma = sigma;
        this.words = words;
    }

    /** Returns a draw: {@code P(x)} goes with {@code exp(−x²/2σ²)}. */
    long next() {
        while (true) {
            long k = 0;
            while (accepts(1, 2, 1, 1)) {
                k++;
            }
            if (!all(k * (k - 1), 1, 2, 1, 1)) {
                continue;
            }
            boolean negative = below(2) == 1;
            long j = below(sigma);
            if (k == 0 && j == 0 && negative) { // zero has one sign only
                continue;
            }
            if (all(k + 1, j, sigma, 2 * k * sigma + j, (2 * k + 2) * sigma)) {
                return negative ? -(k * sigma + j) : k * sigma + j;
            }
        }
    }

    private boolean all(long trials, long a, long aOf, long b, long bOf) {
        while (trials > 0 && accepts(a, aOf, b, bOf)) {
            trials--;
        }
        return trials <= 0;
    }

    /** Returns true with probability {@code exp(−a/aOf·b/bOf)}, both fractions at most 1: Forsythe's method. */
    private boolean accepts(long a, long aOf, long b, long bOf) {
        long n = 1;
        while (below(n) == 0 && below(aOf) < a && below(bOf) < b) {
            n++;
        }
        return n % 2 == 1;
    }

    /** Returns a uniform number below a bound: masked words, those too large passed over. */
    private long below(long bound) {
        if (bound == 1) {
            return 0;
        }
        long mask = Long.highestOneBit(bound - 1) * 2 - 1;
        while (true) {
            long drawn = words.next() & mask;
            if (drawn < bound) {
                return drawn;
            }
        }
    }
}
