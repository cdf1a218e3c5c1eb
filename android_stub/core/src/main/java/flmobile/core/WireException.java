package flmobile.core;

/** Bytes that are not what they should be: the only exception that decoders throw, whatever arrives. */
public final class WireException extends RuntimeException {
    private final String reason;

    /**
     * @param reason a short stable word, e.g. {@code checksum}; the same as the server's
     * @param message what was expected and what came
     */
    public WireException(String reason, String message) {
        super(reason + ": " + message);
        this.reason = reason;
    }

    /** Returns the short stable word. */
    public String reason() {
        return reason;
    }
}
