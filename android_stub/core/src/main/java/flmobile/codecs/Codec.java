package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;

/** Turns the coded tensors of one update, end to end, into bytes and back. */
public interface Codec {
    /** Returns the text that {@link Codecs#parse} turns into this codec again. */
    String name();

    /** Returns all that a decoder must know: what the packet's codec id is made of. */
    default String wireName() {
        return name();
    }

    /** Returns how large trainable tensors may be that travel as float32 beside the payload. */
    default int exactUpTo() {
        return 0;
    }

    /** Returns how much longer than an update of so many values what is decoded of it can be. */
    default double normGain(int values) {
        return 1.0;
    }

    /** Returns the codec as packets of one round use it. */
    default Codec forRound(long round) {
        return this;
    }

    /** Returns the codec as a client with so many examples encodes with it; every decoder reads what it writes. */
    default Codec forExamples(long examples) {
        return this;
    }

    /** Returns the payload of finite values, which are not modified. */
    byte[] encode(float[] values, Spec spec, Philox rng);

    /** Returns {@code float[spec.size()]}; throws {@link flmobile.core.WireException} and nothing else. */
    float[] decode(Reader payload, Spec spec);
}
