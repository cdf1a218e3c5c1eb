package flmobile.core;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;

/** The tensors that both ends agree on, in model order. Their values lie end to end in one {@code float[size()]}. */
public final class Spec {
    /** No model for phones has more. */
    static final int MOST_VALUES = 1 << 28;

    private final List<TensorSpec> tensors;
    private final int[] offsets;
    private final Map<String, Integer> index = new HashMap<>();

    /**
     * @throws WireException two tensors of one path, or more values than any model for phones has
     */
    public Spec(List<TensorSpec> tensors) {
        this.tensors = Collections.unmodifiableList(new ArrayList<>(tensors));
        offsets = new int[tensors.size() + 1];
        for (int i = 0; i < tensors.size(); i++) {
            long end = (long) offsets[i] + tensors.get(i).size;
            if (index.put(tensors.get(i).path, i) != null || end > MOST_VALUES) {
                throw new WireException("terms", "tensor '" + tensors.get(i).path + "' is there twice, or too large");
            }
            offsets[i + 1] = (int) end;
        }
    }

    /** Returns the tensors in model order. */
    public List<TensorSpec> tensors() {
        return tensors;
    }

    /** Returns the number of tensors. */
    public int count() {
        return tensors.size();
    }

    /** Returns the number of values of all. */
    public int size() {
        return offsets[tensors.size()];
    }

    /** Returns where the values of a tensor begin. */
    public int offset(int tensor) {
        return offsets[tensor];
    }

    /** Returns which tensor has a path, −1 if none has. */
    public int indexOf(String path) {
        Integer found = index.get(path);
        return found == null ? -1 : found;
    }

    /** Returns the tensors that are chosen, in the same order. */
    public Spec where(Predicate<TensorSpec> chosen) {
        List<TensorSpec> some = new ArrayList<>();
        for (TensorSpec tensor : tensors) {
            if (chosen.test(tensor)) {
                some.add(tensor);
            }
        }
        return some.size() == tensors.size() ? this : new Spec(some);
    }

    /** Returns the values of {@code part}'s tensors out of values of this spec, which has all of them. */
    public float[] select(float[] values, Spec part) {
        float[] out = new float[part.size()];
        for (int i = 0; i < part.count(); i++) {
            int from = offsets[index.get(part.tensors.get(i).path)];
            System.arraycopy(values, from, out, part.offsets[i], part.tensors.get(i).size);
        }
        return out;
    }

    /** Writes the values of {@code part}'s tensors over those of the same paths in values of this spec. */
    public void insert(float[] values, Spec part, float[] partValues) {
        for (int i = 0; i < part.count(); i++) {
            int to = offsets[index.get(part.tensors.get(i).path)];
            System.arraycopy(partValues, part.offsets[i], values, to, part.tensors.get(i).size);
        }
    }

    /** Returns the 64-bit identity that every packet carries: the head of a SHA-256 over paths, shapes, trainability. */
    public long fingerprint() {
        StringBuilder lines = new StringBuilder();
        for (TensorSpec tensor : tensors) {
            lines.append(tensor.path).append('|').append(tensor.lengths()).append('|');
            lines.append(tensor.trainable ? "1\n" : "0\n");
        }
        return Hashes.headOf(lines.toString().getBytes(StandardCharsets.UTF_8));
    }
}
