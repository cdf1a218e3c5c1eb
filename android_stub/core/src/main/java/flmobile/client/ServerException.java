package flmobile.client;

/** The coordinator does not want what was asked, or gives no answer however often it is tried. */
public final class ServerException extends RuntimeException {
    /** HTTP status, 0 if no answer came. */
    public final int status;
    /** The server's short stable word, {@code unreachable} if no answer came. */
    public final String reason;

    ServerException(int status, String reason, String message) {
        super(message);
        this.status = status;
        this.reason = reason;
    }
}
