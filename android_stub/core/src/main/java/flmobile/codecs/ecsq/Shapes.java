package flmobile.codecs.ecsq;

import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;

/** The tensors as matrices, laid end to end: where each, its rows and its columns begin. */
final class Shapes {
    private static final int MOST_VALUES = 1 << 30;
    final int[] rows;
    final int[] columns;
    final int[] offset;
    final int[] rowAt;
    final int[] columnAt;

    Shapes(int[] rows, int[] columns) {
        this.rows = rows;
        this.columns = columns;
        int tensors = rows.length;
        offset = new int[tensors + 1];
        rowAt = new int[tensors + 1];
        columnAt = new int[tensors + 1];
        for (int t = 0; t < tensors; t++) {
            long end = offset[t] + (long) rows[t] * columns[t];
            if (end > MOST_VALUES) {
                throw new WireException("value", "more values than any model for phones has");
            }
            offset[t + 1] = (int) end;
            rowAt[t + 1] = rowAt[t] + rows[t];
            columnAt[t + 1] = columnAt[t] + columns[t];
        }
    }

    /** A tensor of shape (…, C) has C columns; vectors, and what has no second dimension, are one row. */
    static Shapes of(Spec spec) {
        int[] rows = new int[spec.count()];
        int[] columns = new int[spec.count()];
        for (int t = 0; t < rows.length; t++) {
            TensorSpec tensor = spec.tensors().get(t);
            int last = tensor.rank() == 0 ? 1 : tensor.length(tensor.rank() - 1);
            boolean flat = tensor.rank() < 2 || last < 2 || tensor.size <= last;
            columns[t] = flat ? tensor.size : last;
            rows[t] = flat ? 1 : tensor.size / last;
        }
        return new Shapes(rows, columns);
    }

    /** Returns the shapes that are coded: those of the tensors, then U and V of each that has a rank. */
    Shapes withFactors(int[] ranks) {
        int split = 0;
        for (int rank : ranks) {
            split += rank > 0 ? 1 : 0;
        }
        if (split == 0) {
            return this;
        }
        int at = rows.length;
        int[] allRows = java.util.Arrays.copyOf(rows, at + 2 * split);
        int[] allColumns = java.util.Arrays.copyOf(columns, at + 2 * split);
        for (int t = 0; t < ranks.length; t++) {
            if (ranks[t] > 0) {
                allRows[at] = rows[t];
                allColumns[at++] = ranks[t];
                allRows[at] = columns[t];
                allColumns[at++] = ranks[t];
            }
        }
        return new Shapes(allRows, allColumns);
    }

    int tensors() {
        return rows.length;
    }

    int values() {
        return offset[rows.length];
    }

    int size(int tensor) {
        return rows[tensor] * columns[tensor];
    }

    /** Whether rows and columns can tell values apart. */
    boolean isMatrix(int tensor) {
        return rows[tensor] > 1 && columns[tensor] > 1;
    }
}
