package flmobile.codecs;

import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import flmobile.core.Writer;

/** Low-rank factors of every matrix; see {@code fl_mobile/codecs/powersgd.py}, sums in its order. */
final class PowerSgd implements Codec {
    private static final int ITERATIONS = 4;
    private static final Quantizer.Half HALF = new Quantizer.Half();
    private final String name;
    private final int rank;

    PowerSgd(String name, int rank) {
        this.name = name;
        this.rank = rank;
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
        for (int t = 0; t < spec.count(); t++) {
            TensorSpec tensor = spec.tensors().get(t);
            if (pays(tensor)) {
                factors(values, spec.offset(t), tensor, rng, out);
            } else {
                for (int i = spec.offset(t); i < spec.offset(t + 1); i++) {
                    out.f32(values[i]);
                }
            }
        }
        return out.toBytes();
    }

    private void factors(float[] values, int from, TensorSpec tensor, Philox rng, Writer out) {
        int columns = columns(tensor);
        int rows = tensor.size / columns;
        float[] start = rng.uniform(columns * rank);
        double[][] q = new double[rank][columns];
        for (int i = 0; i < start.length; i++) {
            q[i % rank][i / rank] = start[i] - 0.5;
        }
        double[][] p = new double[rank][rows];
        for (int iteration = 0; iteration < ITERATIONS; iteration++) {
            for (int k = 0; k < rank; k++) {
                for (int row = 0; row < rows; row++) {
                    double sum = 0;
                    for (int column = 0; column < columns; column++) {
                        sum += values[from + row * columns + column] * q[k][column];
                    }
                    p[k][row] = sum;
                }
            }
            makeOrthonormal(p);
            for (int k = 0; k < rank; k++) {
                double[] sums = new double[columns];
                for (int row = 0; row < rows; row++) {
                    for (int column = 0; column < columns; column++) {
                        sums[column] += values[from + row * columns + column] * p[k][row];
                    }
                }
                q[k] = sums;
            }
        }
        double largest = 0;
        for (double[] vector : q) {
            for (double value : vector) {
                largest = Math.max(largest, Math.abs(value));
            }
        }
        float[] scale = {(float) Math.min(largest, Float.MAX_VALUE)}; // in JavaScript only the array makes a float32 of it
        write(p, 1, out);
        out.f32(scale[0]);
        write(q, scale[0], out);
    }

    private static void write(double[][] vectors, double scale, Writer out) {
        for (int i = 0; i < vectors[0].length; i++) {
            for (double[] vector : vectors) {
                HALF.write(scale == 0 ? 0 : Math.min(Math.max(vector[i] / scale, -1), 1), out);
            }
        }
    }

    /** Gram–Schmidt, twice for accuracy; a vector that depends on earlier ones becomes 0. */
    private static void makeOrthonormal(double[][] vectors) {
        for (int k = 0; k < vectors.length; k++) {
            double[] vector = vectors[k];
            double before = Math.sqrt(dot(vector, vector));
            for (int again = 0; again < 2 * k; again++) {
                double[] earlier = vectors[again % k];
                double along = dot(earlier, vector);
                for (int i = 0; i < vector.length; i++) {
                    vector[i] -= along * earlier[i];
                }
            }
            double length = Math.sqrt(dot(vector, vector));
            boolean keeps = length > 1e-12 * before;
            for (int i = 0; i < vector.length; i++) {
                vector[i] = keeps ? vector[i] / length : 0;
            }
        }
    }

    private static double dot(double[] left, double[] right) {
        double sum = 0;
        for (int i = 0; i < left.length; i++) {
            sum += left[i] * right[i];
        }
        return sum;
    }

    @Override
    public float[] decode(Reader payload, Spec spec) {
        float[] out = new float[spec.size()];
        for (int t = 0; t < spec.count(); t++) {
            TensorSpec tensor = spec.tensors().get(t);
            if (pays(tensor)) {
                multiply(payload, tensor, out, spec.offset(t));
            } else {
                System.arraycopy(payload.finite(tensor.size), 0, out, spec.offset(t), tensor.size);
            }
        }
        payload.end();
        return out;
    }

    private void multiply(Reader payload, TensorSpec tensor, float[] out, int at) {
        int columns = columns(tensor);
        int rows = tensor.size / columns;
        float[] p = HALF.decode(payload, rows * rank);
        float scale = payload.finite(1)[0];
        float[] q = HALF.decode(payload, columns * rank);
        for (float[] factors : new float[][] {p, q}) {
            for (float factor : factors) {
                if (Math.abs(factor) > 1) {
                    throw new WireException("value", "a PowerSGD factor is above 1, its columns must be normalised");
                }
            }
        }
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                double sum = (double) p[row * rank] * q[column * rank]; // not from 0, which would turn a −0 around
                for (int k = 1; k < rank; k++) {
                    sum += (double) p[row * rank + k] * q[column * rank + k];
                }
                out[at++] = Quantizer.clipped(sum * scale);
            }
        }
    }

    /** Whether factors hold fewer numbers than the matrix. */
    private boolean pays(TensorSpec tensor) {
        long columns = columns(tensor);
        return columns > 0 && rank * (tensor.size / columns + columns) < tensor.size;
    }

    private static int columns(TensorSpec tensor) {
        return tensor.rank() == 0 ? 1 : tensor.length(tensor.rank() - 1);
    }
}
