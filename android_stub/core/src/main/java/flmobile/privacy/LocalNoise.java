package flmobile.privacy;

import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.PythonText;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Noise that a client adds to its own update, to the bit as {@code fl_mobile/privacy/local.py} says. */
public final class LocalNoise {
    private static final double UNIT = 1 << 30;
    private static final double SHORT = 1 - 0x1p-24;
    private static final double LEAST = 0.3;
    private static final double MOST = DiscreteGaussian.LARGEST_SIGMA / UNIT / 4;
    private final double clipNorm;
    private final long sigma;
    /** A client makes so many answers in a run, and then no more. */
    public final long answers;

    private LocalNoise(Map<String, Object> told) {
        clipNorm = Json.number(told, "clip_norm");
        double multiplier = Json.number(told, "noise_multiplier");
        answers = Json.whole(told, "answers", 1, Integer.MAX_VALUE);
        if (!(clipNorm >= 1e-8 && clipNorm <= 1e8 && multiplier >= LEAST && multiplier <= MOST)) {
            throw new WireException("terms", "the noise that the terms ask for is out of range");
        }
        sigma = (long) Math.ceil(multiplier * UNIT * (1 + 0x1p-40));
    }

    /** Reads what the terms say of it. */
    public static LocalNoise read(Map<String, Object> told) {
        return new LocalNoise(told);
    }

    /**
     * Returns the update as it may leave its client; noise is on every coordinate, zeros too.
     *
     * @param update finite values in model order; not modified
     * @param secret the device's own 32 bytes, which nobody else has
     * @param run names the federation
     */
    public float[] noised(float[] update, byte[] secret, String run, long round) {
        long[] whole = onGrid(update);
        Writer clipped = new Writer();
        clipped.bytes((PythonText.of(clipNorm) + "/" + sigma).getBytes(StandardCharsets.UTF_8));
        for (long value : whole) {
            clipped.u64(value);
        }
        byte[] digest = Hashes.sha256(clipped.toBytes());
        byte[] key = Keys.derive(secret, Keys.part("local-noise"), Keys.part(run), Keys.part(round), Keys.part(digest));
        DiscreteGaussian noise = new DiscreteGaussian(sigma, new ChaCha20(key));
        float[] out = new float[whole.length];
        for (int i = 0; i < out.length; i++) {
            out[i] = (float) ((whole[i] + noise.next()) * (clipNorm / UNIT));
        }
        return out;
    }

    private long[] onGrid(float[] update) {
        double square = 0;
        for (float value : update) {
            square += (double) value * value;
        }
        double norm = Math.sqrt(square);
        double steps = norm <= clipNorm * SHORT ? UNIT / clipNorm : UNIT * SHORT / norm;
        long[] whole = new long[update.length];
        for (int i = 0; i < whole.length; i++) {
            whole[i] = (long) (update[i] * steps);
        }
        return whole;
    }
}
