package flmobile.codecs.ecsq;

import static flmobile.codecs.ecsq.Plans.CLASSES;
import static flmobile.codecs.ecsq.Plans.COLUMN_CLASSES;
import static flmobile.codecs.ecsq.Plans.CONTEXTS;
import static flmobile.codecs.ecsq.Plans.NEUTRAL;
import static flmobile.codecs.ecsq.Plans.ROW_CLASSES;
import static flmobile.codecs.ecsq.Plans.SIGNS;
import static flmobile.codecs.ecsq.Plans.SIGN_CLASSES;

/** The encoder's choices of row, column and sign classes; sums and comparisons in the order of {@code plan.py}. */
final class Planner {
    private static final int FEW = 24;
    private static final int MANY = 1000;
    private static final int MAGNITUDES = 16;
    private static final double LOG2_E = 1.4426950408889634;

    private Planner() {}

    /** Returns plans without any classes: a tensor's context is its own mean magnitude, to a factor of two. */
    static Plans flat(Levels levels, Shapes shapes) {
        Plans plans = new Plans(shapes);
        for (int t = 0, i = 0; t < shapes.tensors(); t++) {
            long total = 0;
            for (; i < levels.count() && levels.positions[i] < shapes.offset[t + 1]; i++) {
                total += levels.magnitudes[i];
            }
            if (total > 0) {
                plans.level[t] = level((double) total / shapes.size(t));
            }
        }
        return plans;
    }

    /** Returns what positions and signs take without classes; magnitudes come on top. */
    static double flatBits(Levels levels, Shapes shapes) {
        double bits = 0;
        for (int t = 0, i = 0; t < shapes.tensors(); t++) {
            int first = i;
            while (i < levels.count() && levels.positions[i] < shapes.offset[t + 1]) {
                i++;
            }
            long slots = shapes.size(t);
            long marked = i - first;
            bits += Log2.xLogX(slots) - Log2.xLogX(marked) - Log2.xLogX(slots - marked) + marked;
        }
        return bits;
    }

    /** Returns for every tensor the cheapest of {zero, flat, rows, columns, both}, with sign classes where they pay. */
    static Plans classes(Levels levels, Shapes shapes) {
        Plans plans = new Plans(shapes);
        for (int t = 0, last = 0; t < shapes.tensors(); t++) {
            int first = last;
            while (last < levels.count() && levels.positions[last] < shapes.offset[t + 1]) {
                last++;
            }
            if (last > first) {
                new Tensor(levels, first, last, shapes, t).plan(plans);
            }
        }
        return plans;
    }

    private static int level(double mean) {
        return Math.min(Math.max((int) Math.rint(Log2.of(mean)) + 20, 1), CONTEXTS - 1);
    }

    private static double entropy(long[] counts) {
        long total = 0;
        for (long count : counts) {
            total += count;
        }
        double bits = Log2.xLogX(total);
        for (long count : counts) {
            bits -= Log2.xLogX(count);
        }
        return bits;
    }

    /** The non-zeros of one tensor. */
    private static final class Tensor {
        private final Levels levels;
        private final Shapes shapes;
        private final int first;
        private final int count;
        private final int t;
        private int[] row;
        private int[] column;
        private long total;

        Tensor(Levels levels, int first, int last, Shapes shapes, int t) {
            this.levels = levels;
            this.shapes = shapes;
            this.first = first;
            this.count = last - first;
            this.t = t;
        }

        void plan(Plans plans) {
            int rows = shapes.rows[t];
            int columns = shapes.columns[t];
            for (int i = 0; i < count; i++) {
                total += levels.magnitudes[first + i];
            }
            plans.level[t] = level((double) total / ((double) rows * columns));
            if (!shapes.isMatrix(t) || count < FEW) {
                return;
            }
            row = new int[count];
            column = new int[count];
            for (int i = 0; i < count; i++) {
                int local = levels.positions[first + i] - shapes.offset[t];
                row[i] = local / columns;
                column[i] = local - row[i] * columns;
            }
            classify(column, columns, plans.columns, shapes.columnAt[t]);
            int[] choices;
            if (rows > 2 * count) { // two rows to a non-zero: naming their classes would cost more than it tells
                choices = new int[] {0, COLUMN_CLASSES};
            } else {
                classify(row, rows, plans.rows, shapes.rowAt[t]);
                choices = count <= MANY
                        ? new int[] {0, ROW_CLASSES | COLUMN_CLASSES}
                        : new int[] {0, COLUMN_CLASSES, ROW_CLASSES, ROW_CLASSES | COLUMN_CLASSES};
            }
            double best = Double.POSITIVE_INFINITY;
            for (int use : choices) {
                double bits = cost(plans, use);
                if (bits < best) {
                    best = bits;
                    plans.flags[t] = use;
                }
            }
            if (classifySigns(columns, plans.signs, shapes.columnAt[t])) {
                plans.flags[t] |= SIGNS;
            }
        }

        /** Sets the class of each row (or column): the nearest power of two, or the neighbour that costs least. */
        private void classify(int[] which, int length, byte[] classes, int at) {
            long[] sums = new long[length];
            for (int i = 0; i < count; i++) {
                sums[which[i]] += levels.magnitudes[first + i];
            }
            int[] members = new int[CLASSES + 1];
            int busy = 0;
            double mean = (double) total / length;
            for (int i = 0; i < length; i++) {
                classes[at + i] = 0;
                if (sums[i] > 0) {
                    double nearest = Math.rint(Log2.of(sums[i] / mean) + NEUTRAL);
                    classes[at + i] = (byte) Math.min(Math.max(nearest, 1), CLASSES - 1);
                    members[classes[at + i]]++;
                    busy++;
                }
            }
            double[] price = new double[CLASSES + 1];
            for (int k = 0; busy > 0 && k <= CLASSES; k++) {
                price[k] = Log2.of(busy) - Log2.of(members[k] + 0.5);
            }
            for (int i = 0; i < length; i++) {
                if (sums[i] == 0) {
                    continue;
                }
                int middle = classes[at + i];
                double least = Double.POSITIVE_INFINITY;
                for (int n = 0; n < 3; n++) {
                    int option = n == 0 ? middle : n == 1 ? Math.max(middle - 1, 1) : Math.min(middle + 1, CLASSES - 1);
                    double power = Math.scalb(1.0, option - NEUTRAL);
                    double cost = power * (mean * LOG2_E) - sums[i] * (option - NEUTRAL) + price[option];
                    if (cost < least) {
                        least = cost;
                        classes[at + i] = (byte) option;
                    }
                }
            }
        }

        /** Returns the bits of the tensor: positions, magnitudes and the classes that are used. */
        private double cost(Plans plans, int use) {
            boolean byRows = (use & ROW_CLASSES) != 0;
            boolean byColumns = (use & COLUMN_CLASSES) != 0;
            double bits = 0;
            long[] rowCount = new long[CLASSES];
            long[] columnCount = new long[CLASSES];
            if (byRows) {
                bits += nameClasses(plans.rows, shapes.rowAt[t], shapes.rows[t], rowCount);
            } else {
                rowCount[0] = shapes.rows[t];
            }
            if (byColumns) {
                bits += nameClasses(plans.columns, shapes.columnAt[t], shapes.columns[t], columnCount);
            } else {
                columnCount[0] = shapes.columns[t];
            }
            long[] slots = new long[2 * CLASSES - 1];
            for (int a = 0; a < CLASSES; a++) {
                for (int b = 0; rowCount[a] > 0 && b < CLASSES; b++) {
                    slots[a + b] += rowCount[a] * columnCount[b];
                }
            }
            long[][] table = new long[2 * CLASSES - 1][MAGNITUDES];
            for (int i = 0; i < count; i++) {
                int context = byRows ? plans.rows[shapes.rowAt[t] + row[i]] : 0;
                context += byColumns ? plans.columns[shapes.columnAt[t] + column[i]] : 0;
                table[context][Math.min(levels.magnitudes[first + i], MAGNITUDES) - 1]++;
            }
            for (int context = 0; context < table.length; context++) {
                long marked = 0;
                for (long each : table[context]) {
                    marked += each;
                }
                bits += Log2.xLogX(slots[context]) - Log2.xLogX(slots[context] - marked);
                if (marked > 0) {
                    bits += 16;
                    for (long each : table[context]) {
                        bits -= Log2.xLogX(each);
                        bits += each > 0 ? 3 : 0;
                    }
                }
            }
            return bits;
        }

        private static double nameClasses(byte[] classes, int at, int length, long[] members) {
            for (int i = 0; i < length; i++) {
                members[classes[at + i]]++;
            }
            int kinds = 0;
            for (long each : members) {
                kinds += each > 0 ? 1 : 0;
            }
            double bits = entropy(members) + 5 * kinds;
            members[0] = 0;
            return bits;
        }

        /** Sets the sign classes of the columns, and returns whether they pay. */
        private boolean classifySigns(int columns, byte[] classes, int at) {
            int[] of = new int[columns];
            int[] minus = new int[columns];
            for (int i = 0; i < count; i++) {
                of[column[i]]++;
                minus[column[i]] += levels.negative[first + i] ? 1 : 0;
            }
            long[] alike = new long[4];
            long[] all = new long[4];
            long[] members = new long[SIGN_CLASSES];
            for (int c = 0; c < columns; c++) {
                int most = Math.max(minus[c], of[c] - minus[c]);
                double share = of[c] > 0 ? (most + 0.5) / (of[c] + 1) : 0.0;
                int sureness = (share > 0.65 ? 1 : 0) + (share > 0.85 ? 1 : 0) + (share > 0.96 ? 1 : 0);
                alike[sureness] += most;
                all[sureness] += of[c];
                classes[at + c] = (byte) (sureness + (sureness > 0 && 2 * minus[c] > of[c] ? 3 : 0));
                members[classes[at + c]]++;
            }
            double coded = entropy(members) + 50.0;
            long whole = 0;
            for (int sureness = 1; sureness < 4; sureness++) {
                whole += all[sureness];
                coded += Log2.xLogX(all[sureness]) - Log2.xLogX(alike[sureness])
                        - Log2.xLogX(all[sureness] - alike[sureness]);
            }
            return coded < whole;
        }
    }
}
