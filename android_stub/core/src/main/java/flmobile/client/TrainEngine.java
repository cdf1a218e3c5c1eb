package flmobile.client;

import java.nio.ByteBuffer;
import java.util.Map;

/**
 * A loaded training program. The seam between the client and a runtime: TFLite in an app, LiteRT on a desktop. Not for two
 * threads at once.
 */
public interface TrainEngine extends AutoCloseable {
    /**
     * Runs a signature.
     *
     * @param inputs by name, in native byte order, from position to limit; not modified
     * @return outputs by name, in native byte order
     */
    Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs);

    @Override
    void close();

    /** Loads programs; their length and hash have been checked. */
    interface Loader {
        TrainEngine load(byte[] program);

        /** Returns what check-ins say of it, e.g. {@code tflite-2.20}. */
        String runtime();
    }
}
