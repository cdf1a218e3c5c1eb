package flmobile.wire;

import flmobile.codecs.Deflated;
import flmobile.codecs.Projection;
import flmobile.codecs.Sketch;
import flmobile.core.PythonText;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.WireException;

/** Downloads that are the sums of past rounds, where uploads are sketches; see {@code fl_mobile/wire/forward.py}. */
final class ForwardedSums {
    private static final int MOST_ROUNDS = 10_000;
    private final Lattice lattice;
    private final Sketch upload;

    ForwardedSums(Lattice lattice, Sketch upload) {
        this.lattice = lattice;
        this.upload = upload;
    }

    /** Moves a point, in place, and returns the weights there. */
    float[] unpack(byte[] packet, int[] point) {
        String codec = "sums of " + upload.wireName() + " at " + PythonText.of(lattice.step);
        Packet opened = Packet.open(packet, lattice.spec, codec, 0);
        long rounds = opened.header.round - opened.header.baseRound;
        if (opened.header.kind != Packet.MODEL_SUMS || rounds < 0 || rounds > MOST_ROUNDS) {
            throw new WireException("round", "sums of at most " + MOST_ROUNDS + " rounds expected, got " + rounds);
        }
        Reader reader = new Reader(opened.payload);
        int[] gains = new int[(int) rounds];
        long moving = 0;
        for (int i = 0; i < gains.length; i++) {
            gains[i] = reader.varint(Lattice.FURTHEST);
            moving += gains[i] > 0 ? 1 : 0;
        }
        long size = moving * upload.numbers();
        byte[] numbers = moving > 0 ? Deflated.unpack(reader, size) : new byte[0];
        reader.end();
        if (numbers.length != size) {
            throw new WireException("truncated", "the numbers of " + moving + " rounds are " + size + " bytes");
        }
        Spec trainable = lattice.spec.where(tensor -> tensor.trainable);
        long[] totals = new long[trainable.size()];
        for (int i = 0, at = 0; i < gains.length; i++) {
            if (gains[i] > 0) {
                long key = upload.key(opened.header.baseRound + i);
                new Projection(key, totals.length, upload.numbers()).addTo(totals, numbers, at, gains[i]);
                at += upload.numbers();
            }
        }
        move(trainable, totals, point);
        return lattice.weights(point, opened.values);
    }

    private void move(Spec trainable, long[] totals, int[] point) {
        int[] moved = point.clone();
        for (int n = 0; n < trainable.count(); n++) {
            int to = lattice.spec.offset(lattice.spec.indexOf(trainable.tensors().get(n).path));
            for (int i = trainable.offset(n); i < trainable.offset(n + 1); i++, to++) {
                long reached = point[to] + totals[i];
                if (Math.abs(reached) > Lattice.FURTHEST) {
                    throw new WireException("value", "the sums lead too far away from the first model");
                }
                moved[to] = (int) reached;
            }
        }
        System.arraycopy(moved, 0, point, 0, point.length);
    }
}
