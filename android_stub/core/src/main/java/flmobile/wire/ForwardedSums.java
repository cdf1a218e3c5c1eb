package flmobile.wire;

import flmobile.codecs.Deflated;
import flmobile.codecs.Projection;
import flmobile.codecs.Sketch;
import flmobile.core.PythonText;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.util.Arrays;

/** Downloads that are the sums of past rounds, where uploads are sketches; see {@code fl_mobile/wire/forward.py}. */
final class ForwardedSums {
    private static final int MOST_ROUNDS = 10_000;
    private static final int FIVES = 243;
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
        int[] heads = new int[(int) rounds];
        long size = 0;
        for (int i = 0; i < heads.length; i++) {
            heads[i] = reader.varint(2 * Lattice.FURTHEST + 1);
            size += heads[i] > 0 ? length(heads[i]) : 0;
        }
        byte[] packed = size > 0 ? Deflated.unpack(reader, size) : new byte[0];
        reader.end();
        if (packed.length != size) {
            throw new WireException("truncated", "the numbers take " + size + " bytes, got " + packed.length);
        }
        Spec trainable = lattice.spec.where(tensor -> tensor.trainable);
        long[] totals = new long[trainable.size()];
        for (int i = 0, at = 0; i < heads.length; i++) {
            if (heads[i] > 0) {
                long key = upload.key(opened.header.baseRound + i);
                byte[] numbers = numbers(packed, at, heads[i]);
                new Projection(key, totals.length, upload.numbers()).addTo(totals, numbers, heads[i] >> 1);
                at += length(heads[i]);
            }
        }
        move(trainable, totals, point);
        return lattice.weights(point, opened.values);
    }

    /** Returns the bytes of a round's numbers: one a number, or five numbers in each. */
    private int length(int head) {
        return (head & 1) != 0 ? (upload.numbers() + 4) / 5 : upload.numbers();
    }

    private byte[] numbers(byte[] packed, int at, int head) {
        if (head >> 1 == 0) {
            throw new WireException("value", "numbers of a round in which nothing moved");
        }
        if ((head & 1) == 0) {
            return Arrays.copyOfRange(packed, at, at + upload.numbers());
        }
        byte[] numbers = new byte[5 * length(head)];
        for (int i = 0; i < length(head); i++) {
            int five = packed[at + i] & 0xFF;
            if (five >= FIVES) {
                throw new WireException("value", "a byte of five numbers is below " + FIVES + ", got " + five);
            }
            for (int j = 0; j < 5; j++, five /= 3) {
                numbers[5 * i + j] = (byte) (five % 3 - 1);
            }
        }
        for (int i = upload.numbers(); i < numbers.length; i++) {
            if (numbers[i] != 0) {
                throw new WireException("value", upload.numbers() + " numbers are filled up with zeros, got others");
            }
        }
        return numbers;
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
