package flmobile.client;

/** How often and how long a client tries one request. */
public final class Patience {
    final int tries;
    private final double firstSeconds;
    private final double mostSeconds;
    final int timeoutMs;

    /**
     * @param firstSeconds mean wait before the second try; doubles from try to try
     * @param mostSeconds longest wait
     * @param timeoutSeconds without a byte, a try is over
     */
    public Patience(int tries, double firstSeconds, double mostSeconds, double timeoutSeconds) {
        this.tries = tries;
        this.firstSeconds = firstSeconds;
        this.mostSeconds = mostSeconds;
        this.timeoutMs = (int) (1000 * timeoutSeconds);
    }

    public Patience() {
        this(8, 0.5, 60, 30);
    }

    /** Returns seconds to wait after so many failures in a row; {@code draw} in [0, 1) spreads a crowd of clients. */
    double waitAfter(int failed, double draw) {
        return Math.min(mostSeconds, firstSeconds * Math.pow(2, failed - 1)) * (0.5 + draw);
    }
}
