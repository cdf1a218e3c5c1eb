package flmobile.app;

import flmobile.engine.TfLite;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** One recipe of a bundle on the runtime that trains, too. Not for two threads at once. */
final class Classifier implements AutoCloseable {
    private static final int THREADS = 2;
    final CameraModel model;
    final CameraModel.Recipe recipe;
    private final TfLite engine;

    Classifier(CameraModel model, CameraModel.Recipe recipe, byte[] file) {
        this.model = model;
        this.recipe = recipe;
        engine = new TfLite(file, THREADS);
    }

    /** Returns a probability for each label. */
    float[] classify(byte[] frame) {
        ByteBuffer answer =
                engine.run(recipe.signature, Collections.singletonMap(model.inputName, ByteBuffer.wrap(frame))).get(recipe.output);
        float[] out = new float[model.labels.size()];
        int width = recipe.outputType.equals("float32") ? 4 : 1;
        if (answer == null || answer.remaining() != width * out.length) {
            throw new IllegalStateException(recipe.file + " does not answer with " + out.length + " classes");
        }
        for (int i = 0; i < out.length; i++) {
            if (width == 4) {
                out[i] = answer.getFloat(4 * i);
            } else {
                int stored = recipe.outputType.equals("uint8") ? answer.get(i) & 0xFF : answer.get(i);
                out[i] = (float) ((stored - recipe.zeroPoint) * recipe.scale);
            }
        }
        return out;
    }

    /** Returns how many golden frames have the first class that Python found. */
    int goldenFramesAsInPython() {
        int same = 0;
        for (int i = 0; i < model.golden.size(); i++) {
            same += best(classify(model.golden.get(i)), 1).get(0) == recipe.golden[i] ? 1 : 0;
        }
        return same;
    }

    /** Returns the classes of the largest values, the largest first, the first one of equals. */
    static List<Integer> best(float[] values, int count) {
        List<Integer> order = new ArrayList<>();
        for (int i = 0; i < values.length; i++) {
            order.add(i);
        }
        order.sort((a, b) -> Float.compare(values[b], values[a]));
        return order.subList(0, Math.min(count, values.length));
    }

    @Override
    public void close() {
        engine.close();
    }
}
