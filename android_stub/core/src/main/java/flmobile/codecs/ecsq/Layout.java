package flmobile.codecs.ecsq;

import static flmobile.codecs.ecsq.Plans.CLASSES;
import static flmobile.codecs.ecsq.Plans.COLUMN_CLASSES;
import static flmobile.codecs.ecsq.Plans.CONTEXTS;
import static flmobile.codecs.ecsq.Plans.NEUTRAL;
import static flmobile.codecs.ecsq.Plans.ROW_CLASSES;

import java.util.Arrays;

/** The order of places for given shapes and plans: by context, tensor, row class, column class, row and column. */
final class Layout {
    private final Shapes shapes;
    private final Plans plans;
    private final Axis down;
    private final Axis across;
    /** How many places each context has. */
    final int[] slots = new int[CONTEXTS];
    /** First place of each block, in coding order. */
    final int[] start;
    private final int[] tensor;
    /** Row class · 32 + column class; 0 for a tensor that is one block. */
    private final int[] pair;
    /** Of tensors with classes: pair → block, −1 where there is none. */
    private final int[][] block;
    /** Of tensors without: their block. */
    private final int[] only;

    Layout(Shapes shapes, Plans plans) {
        this.shapes = shapes;
        this.plans = plans;
        down = new Axis(shapes.rowAt, plans.rows, plans, ROW_CLASSES);
        across = new Axis(shapes.columnAt, plans.columns, plans, COLUMN_CLASSES);
        int tensors = shapes.tensors();
        int[] begin = new int[CONTEXTS + 1];
        for (int t = 0; t < tensors; t++) {
            if (plans.level[t] == 0) {
                continue;
            }
            if (!plans.hasClasses(t)) {
                begin[plans.level[t] + 1]++;
                continue;
            }
            for (int a = 1; a < CLASSES; a++) {
                for (int b = 1; b < CLASSES; b++) {
                    if (down.count[t][a] > 0 && across.count[t][b] > 0) {
                        begin[contextOf(plans.level[t], a, b) + 1]++;
                    }
                }
            }
        }
        for (int k = 0; k < CONTEXTS; k++) {
            begin[k + 1] += begin[k];
        }
        int blocks = begin[CONTEXTS];
        tensor = new int[blocks];
        pair = new int[blocks];
        int[] size = new int[blocks];
        block = new int[tensors][];
        only = new int[tensors];
        for (int t = 0; t < tensors; t++) {
            if (plans.level[t] == 0) {
                continue;
            }
            if (!plans.hasClasses(t)) {
                int at = begin[plans.level[t]]++;
                only[t] = at;
                tensor[at] = t;
                size[at] = shapes.size(t);
                slots[plans.level[t]] += size[at];
                continue;
            }
            block[t] = new int[CLASSES * CLASSES];
            Arrays.fill(block[t], -1);
            for (int a = 1; a < CLASSES; a++) {
                for (int b = 1; b < CLASSES; b++) {
                    if (down.count[t][a] > 0 && across.count[t][b] > 0) {
                        int context = contextOf(plans.level[t], a, b);
                        int at = begin[context]++;
                        tensor[at] = t;
                        pair[at] = a * CLASSES + b;
                        size[at] = down.count[t][a] * across.count[t][b];
                        block[t][pair[at]] = at;
                        slots[context] += size[at];
                    }
                }
            }
        }
        start = new int[blocks];
        for (int i = 1; i < blocks; i++) {
            start[i] = start[i - 1] + size[i - 1];
        }
    }

    private static int contextOf(int level, int rowClass, int columnClass) {
        return Math.min(Math.max(level + rowClass + columnClass - 2 * NEUTRAL, 1), CONTEXTS - 1);
    }

    /** Sets the block of each rising position and its place within it; block −1 where a class says zero. */
    void findBlocks(int[] positions, int[] blockOf, int[] inside) {
        int t = 0;
        for (int i = 0; i < positions.length; i++) {
            while (positions[i] >= shapes.offset[t + 1]) {
                t++;
            }
            int local = positions[i] - shapes.offset[t];
            if (plans.level[t] == 0) {
                blockOf[i] = inside[i] = -1;
            } else if (block[t] == null) {
                blockOf[i] = only[t];
                inside[i] = local;
            } else {
                int row = local / shapes.columns[t];
                int column = local - row * shapes.columns[t];
                int a = (plans.flags[t] & ROW_CLASSES) != 0 ? plans.rows[shapes.rowAt[t] + row] : NEUTRAL;
                int b = (plans.flags[t] & COLUMN_CLASSES) != 0 ? plans.columns[shapes.columnAt[t] + column] : NEUTRAL;
                blockOf[i] = block[t][a * CLASSES + b];
                inside[i] = down.rank[shapes.rowAt[t] + row] * across.count[t][b]
                        + across.rank[shapes.columnAt[t] + column];
            }
        }
    }

    /** Turns rising places into positions, in place, and sets the tensor of each. */
    void toPositions(int[] places, int[] tensorOf) {
        int at = -1;
        int end = 0;
        int t = 0;
        int rowFirst = 0;
        int columnFirst = 0;
        int width = 0;
        for (int i = 0; i < places.length; i++) {
            while (places[i] >= end) {
                at++;
                t = tensor[at];
                int a = pair[at] / CLASSES;
                int b = pair[at] % CLASSES;
                if (a > 0) {
                    width = across.count[t][b];
                    end = start[at] + down.count[t][a] * width;
                    rowFirst = shapes.rowAt[t] + down.first(t, a);
                    columnFirst = shapes.columnAt[t] + across.first(t, b);
                } else {
                    width = 0;
                    end = start[at] + shapes.size(t);
                }
            }
            int inside = places[i] - start[at];
            if (width > 0) {
                int row = inside / width;
                inside = down.order[rowFirst + row] * shapes.columns[t]
                        + across.order[columnFirst + inside - row * width];
            }
            places[i] = shapes.offset[t] + inside;
            tensorOf[i] = t;
        }
    }

    /** The rows (or columns) of all tensors by class. */
    private static final class Axis {
        /** Place of a row among those of its class. */
        final int[] rank;
        /** Rows of a tensor by class. */
        final int[] order;
        /** Rows of each class. */
        final int[][] count;

        Axis(int[] at, byte[] classes, Plans plans, int flag) {
            int tensors = at.length - 1;
            rank = new int[at[tensors]];
            order = new int[at[tensors]];
            count = new int[tensors][];
            for (int t = 0; t < tensors; t++) {
                if (plans.level[t] == 0 || !plans.hasClasses(t)) {
                    continue;
                }
                count[t] = new int[CLASSES];
                int length = at[t + 1] - at[t];
                boolean classed = (plans.flags[t] & flag) != 0;
                for (int i = 0; i < length; i++) {
                    int which = classed ? classes[at[t] + i] : NEUTRAL;
                    rank[at[t] + i] = count[t][which]++;
                }
                int[] first = new int[CLASSES];
                for (int k = 1; k < CLASSES; k++) {
                    first[k] = first[k - 1] + count[t][k - 1];
                }
                for (int i = 0; i < length; i++) {
                    int which = classed ? classes[at[t] + i] : NEUTRAL;
                    order[at[t] + first[which] + rank[at[t] + i]] = i;
                }
            }
        }

        /** Returns where a class begins in the order of a tensor's rows. */
        int first(int tensor, int which) {
            int first = 0;
            for (int k = 0; k < which; k++) {
                first += count[tensor][k];
            }
            return first;
        }
    }
}
