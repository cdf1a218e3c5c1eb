package flmobile;

import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.Writer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Files that Python wrote under {@code tests/}, and the updates that both draw: {@code tests/android_stub/drawn.py}. */
public final class Shared {
    private Shared() {}

    /** Returns a file of the repository. */
    public static Path path(String name) {
        return Paths.get(System.getProperty("fl.repository")).resolve(name);
    }

    public static Map<String, Object> json(String name) {
        try {
            return Json.object(Files.readAllBytes(path(name)));
        } catch (IOException missing) {
            throw new AssertionError(missing);
        }
    }

    public static Spec spec(Object tensors) {
        List<TensorSpec> out = new ArrayList<>();
        for (Object row : Json.list(tensors)) {
            List<?> parts = Json.list(row);
            List<?> lengths = Json.list(parts.get(1));
            int[] shape = new int[lengths.size()];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = ((Long) lengths.get(i)).intValue();
            }
            out.add(new TensorSpec((String) parts.get(0), shape, (Boolean) parts.get(2)));
        }
        return new Spec(out);
    }

    /** Returns the first 16 digits of a SHA-256. */
    public static String digest(byte[] data) {
        return Hashes.hex(Hashes.sha256(data)).substring(0, 16);
    }

    public static String digest(float[] values) {
        return digest(new Writer().floats(values).toBytes());
    }

    private static long mixed(long index, long key) {
        return (index * 2654435761L + key * 40503) % (1L << 32) >>> 7;
    }

    /** Returns {@code drawn(spec, pattern, key)}. */
    public static float[] drawn(Spec spec, String pattern, long key) {
        float[] draws = new Philox(key).uniform(spec.size());
        double[] x = new double[draws.length];
        for (int i = 0; i < x.length; i++) {
            double u = 2.0 * draws[i] - 1.0;
            boolean zero = pattern.equals("sparse") ? mixed(i, key) % 97 != 0 : mixed(i, key) % 3 == 0;
            x[i] = zero ? 0 : u * u * u;
        }
        for (int t = 0; pattern.equals("rows and columns") && t < spec.count(); t++) {
            TensorSpec tensor = spec.tensors().get(t);
            int columns = tensor.rank() == 0 ? 1 : tensor.length(tensor.rank() - 1);
            for (int i = 0; i < tensor.size; i++) {
                long row = mixed(i / columns, key);
                long column = mixed(i % columns, key + 1);
                int at = spec.offset(t) + i;
                x[at] = column % 3 == 0 ? Math.abs(x[at]) : x[at];
                x[at] = Math.scalb(x[at], -(int) ((row >> 4) % 9) - (int) ((column >> 4) % 5));
                x[at] = row % 4 == 0 ? 0 : x[at];
            }
        }
        double scale = pattern.equals("tiny") ? 1e-38 : pattern.equals("huge") ? 1e30 : 0.01;
        float[] out = new float[x.length];
        for (int i = 0; i < x.length; i++) {
            out[i] = (float) (x[i] * scale);
        }
        return out;
    }
}
