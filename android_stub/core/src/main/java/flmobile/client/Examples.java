package flmobile.client;

import java.nio.ByteBuffer;

/** What a client trains on; it never leaves the device. */
public interface Examples {
    int count();

    /** Returns the label of an example. */
    int label(int example);

    /**
     * Appends an example's input, in native byte order.
     *
     * @param dtype {@code float32} or {@code uint8}, as the training program takes it
     */
    void put(int example, String dtype, ByteBuffer out);
}
