package flmobile.client;

import java.io.IOException;
import java.util.concurrent.CancellationException;

/** The device around a client: its clock, its patience for waits, and whether it may work now. */
public interface Environment {
    /** What a client is about to do; it can be cancelled at each. */
    enum Step {
        ENROL,
        CHECK_IN,
        DOWNLOAD,
        RECEIVED,
        TRAIN,
        STEP,
        ANSWER,
        UPLOAD,
        SETTLE
    }

    /** Returns milliseconds since 1970 by the device's clock, however wrong it is. */
    default long clockMs() {
        return System.currentTimeMillis();
    }

    /** Waits; throws {@link CancellationException} to give up. */
    default void rest(double seconds) {
        try {
            Thread.sleep((long) (1000 * seconds));
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new CancellationException("interrupted");
        }
    }

    /** Returns why the client must not work now (not charging, metered, too warm, no room); empty if it may. */
    default String whyNot() {
        return "";
    }

    /** Is told of a packet before it is sent, and again where it is sent again; what it throws keeps the packet here. */
    default void sending(long round, byte[] packet) throws IOException {}

    /** Is told of each step; throws {@link CancellationException} to stop there. */
    default void at(Step step) {
        if (Thread.currentThread().isInterrupted()) {
            throw new CancellationException("interrupted");
        }
    }
}
