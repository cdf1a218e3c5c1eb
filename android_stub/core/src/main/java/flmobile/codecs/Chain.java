package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.Writer;
import java.util.List;

/** A codec made of stages: flat, prune, quantize, pack; see {@code fl_mobile/codecs/chain.py}. */
final class Chain implements Codec {
    private final String name;
    private final boolean flat;
    private final List<Pruner> prunes;
    private final Quantizer quantize;
    private final List<Integer> deflateLevels;

    Chain(String name, boolean flat, List<Pruner> prunes, Quantizer quantize, List<Integer> deflateLevels) {
        this.name = name;
        this.flat = flat;
        this.prunes = prunes;
        this.quantize = quantize;
        this.deflateLevels = deflateLevels;
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public int exactUpTo() {
        return 256;
    }

    @Override
    public byte[] encode(float[] values, Spec spec, Philox rng) {
        Writer out = new Writer();
        int vectors = flat ? Math.min(1, spec.count()) : spec.count();
        for (int t = 0; t < vectors; t++) {
            float[] some = flat ? values : java.util.Arrays.copyOfRange(values, spec.offset(t), spec.offset(t + 1));
            for (Pruner prune : prunes) {
                int[] keep = prune.keep(some);
                Bits.writePositions(out, keep, some.length);
                float[] kept = new float[keep.length];
                for (int i = 0; i < keep.length; i++) {
                    kept[i] = some[keep[i]];
                }
                some = kept;
            }
            quantize.encode(some, rng, out);
        }
        byte[] payload = out.toBytes();
        for (int level : deflateLevels) {
            payload = Deflated.pack(payload, level);
        }
        return payload;
    }

    @Override
    public float[] decode(Reader payload, Spec spec) {
        int vectors = flat ? Math.min(1, spec.count()) : spec.count();
        long limit = 0;
        for (int t = 0; t < vectors; t++) {
            limit += maxBytes(size(spec, t));
        }
        long[] limits = new long[deflateLevels.size() + 1]; // after no pack stage, after the first, …
        limits[0] = limit;
        for (int i = 1; i < limits.length; i++) {
            limits[i] = Deflated.maxBytes(limits[i - 1]);
        }
        Reader reader = payload;
        for (int i = limits.length - 2; i >= 0; i--) {
            reader = new Reader(Deflated.unpack(reader, limits[i]));
        }
        float[] out = new float[spec.size()];
        int at = 0;
        for (int t = 0; t < vectors; t++) {
            float[] values = decodeVector(reader, size(spec, t), 0);
            System.arraycopy(values, 0, out, at, values.length);
            at += values.length;
        }
        reader.end();
        return out;
    }

    private int size(Spec spec, int vector) {
        return flat ? spec.size() : spec.tensors().get(vector).size;
    }

    private float[] decodeVector(Reader reader, int count, int stage) {
        if (stage == prunes.size()) {
            return quantize.decode(reader, count);
        }
        int[] keep = Bits.readPositions(reader, count);
        float[] values = decodeVector(reader, keep.length, stage + 1);
        float[] out = new float[count];
        for (int i = 0; i < keep.length; i++) {
            out[keep[i]] = values[i];
        }
        return out;
    }

    private long maxBytes(long count) {
        return prunes.size() * Bits.positionBytes(count) + quantize.maxBytes(count);
    }
}
