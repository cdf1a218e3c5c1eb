package flmobile.core;

/** Path, shape and trainability of one tensor that travels. Statistics (batch-norm mean and variance) do not train. */
public final class TensorSpec {
    public final String path;
    public final boolean trainable;
    /** Number of values; 1 for a scalar. */
    public final int size;
    private final int[] shape;

    /**
     * @throws WireException a negative length, or 2^31 values and more
     */
    public TensorSpec(String path, int[] shape, boolean trainable) {
        this.path = path;
        this.shape = shape.clone();
        this.trainable = trainable;
        long values = 1;
        for (int length : shape) {
            if (length < 0) {
                throw new WireException("terms", "tensor '" + path + "' has a length below 0");
            }
            values *= length;
            if (values > Spec.MOST_VALUES) {
                throw new WireException("terms", "tensor '" + path + "' has more than " + Spec.MOST_VALUES + " values");
            }
        }
        this.size = (int) values;
    }

    /** Returns the number of dimensions. */
    public int rank() {
        return shape.length;
    }

    /** Returns the length of one dimension. */
    public int length(int dimension) {
        return shape[dimension];
    }

    /** Returns {@code d0,d1,…}. */
    String lengths() {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < shape.length; i++) {
            text.append(i == 0 ? "" : ",").append(shape[i]);
        }
        return text.toString();
    }
}
