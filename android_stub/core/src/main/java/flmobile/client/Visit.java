package flmobile.client;

/** What became of a visit. */
public final class Visit {
    /** The round that the client took part in, −1 if it was not asked. */
    public final long round;
    /** Whether its packet counts. */
    public final boolean accepted;
    /** Why it was not asked, or its packet does not count; a short stable word. */
    public final String reason;
    /** When it is to come again. */
    public final double waitSeconds;
    /** Whether the coordinator needs nobody any more. */
    public final boolean finished;

    Visit(long round, boolean accepted, String reason, double waitSeconds, boolean finished) {
        this.round = round;
        this.accepted = accepted;
        this.reason = reason;
        this.waitSeconds = waitSeconds;
        this.finished = finished;
    }
}
