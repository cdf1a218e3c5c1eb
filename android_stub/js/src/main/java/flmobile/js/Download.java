package flmobile.js;

import flmobile.wire.Agreement;
import org.teavm.jso.JSExport;
import org.teavm.jso.JSProperty;

/** What a download brings: whole models, deltas, points of the lattice, forwarded sums, and what travels beside. */
public final class Download {
    private static final byte[] NOTHING = {};
    private final Agreement.Decoded decoded;

    private Download(Agreement.Decoded decoded) {
        this.decoded = decoded;
    }

    /**
     * Reads the download of a version.
     *
     * @param terms the blob of the run's terms
     * @param first the blob of first weights that they name
     * @param prediction a packet, null or empty if none came
     * @param beside the same
     * @param held the version that is held; 0 is the one of the terms
     * @param point what {@link #getPoint} was of that version, null for version 0
     */
    static Download read(
            byte[] terms, byte[] first, byte[] model, byte[] prediction, byte[] beside, int version, int held, int[] point) {
        return new Download(Agreement.read(terms, first)
                .decode(model, orNothing(prediction), orNothing(beside), version, held, point));
    }

    private static byte[] orNothing(byte[] packet) {
        return packet == null ? NOTHING : packet;
    }

    /** Returns where local training starts. */
    @JSExport
    @JSProperty
    public float[] getWeights() {
        return decoded.weights;
    }

    /** Returns the coordinates on the lattice, to be held until the next download; null where whole models travel. */
    @JSExport
    @JSProperty
    public int[] getPoint() {
        return decoded.point;
    }

    /** Returns what is taken off every update, under CAFe; else null. */
    @JSExport
    @JSProperty
    public float[] getPrediction() {
        return decoded.prediction;
    }

    /** Returns what the algorithm sent beside the model; else null. */
    @JSExport
    @JSProperty
    public float[] getBeside() {
        return decoded.beside;
    }
}
