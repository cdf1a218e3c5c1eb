package flmobile.codecs.ecsq;

import static flmobile.codecs.ecsq.LevelReader.MAX_PER_BYTE;
import static flmobile.codecs.ecsq.LevelReader.SIGN_GROUPS;
import static flmobile.codecs.ecsq.Plans.COLUMN_CLASSES;
import static flmobile.codecs.ecsq.Plans.CONTEXTS;
import static flmobile.codecs.ecsq.Plans.ROW_CLASSES;
import static flmobile.codecs.ecsq.Plans.SIGNS;

import flmobile.core.Writer;
import java.util.ArrayList;
import java.util.List;

/** Levels of at least one non-zero to bytes, without a low-rank part. The layout is in the Python package. */
final class LevelWriter {
    private final Levels levels;
    private final Shapes shapes;
    private final Plans plans;
    private final Layout layout;
    private final int total;
    /** Non-zeros of each context. */
    private final int[] counts = new int[CONTEXTS];
    /** In coding order: which non-zero, the gap before it, and its sign's group and whether it is the unlikely one. */
    private final int[] order;
    private final int[] gaps;
    private final byte[] group;
    private final boolean[] odd;

    private LevelWriter(Levels levels, Shapes shapes, Plans plans) {
        this.levels = levels;
        this.shapes = shapes;
        this.plans = plans;
        layout = new Layout(shapes, plans);
        total = levels.count();
        order = new int[total];
        gaps = new int[total];
        group = new byte[total];
        odd = new boolean[total];
        inOrder();
        signGroups();
    }

    /** Returns side bits, ANS stream and raw bits. */
    static byte[] write(Levels levels, Shapes shapes, Plans plans) {
        return new LevelWriter(levels, shapes, plans).bytes();
    }

    private byte[] bytes() {
        int[] gapSymbols = new int[total];
        int[] magnitudeSymbols = new int[total];
        for (int i = 0; i < total; i++) {
            gapSymbols[i] = Models.bucketOf(gaps[i]);
            magnitudeSymbols[i] = Models.bucketOf(levels.magnitudes[order[i]] - 1);
        }
        BitBuffer side = new BitBuffer();
        side.put(0, 1); // no low-rank part
        for (int t = 0; t < shapes.tensors(); t++) {
            side.put(plans.level[t], 5);
            if (plans.level[t] > 0 && shapes.isMatrix(t)) {
                side.put(plans.flags[t], 3);
            }
        }
        int[] classes = gather(ROW_CLASSES | COLUMN_CLASSES);
        int[] signs = gather(SIGNS);
        long[] classModel = classes.length > 0 ? fitted(side, classes) : new long[0];
        long[] signModel = signs.length > 0 ? fitted(side, signs) : new long[0];
        long[][] tables = writeContexts(side, magnitudeSymbols);
        long[][] groupModels = new long[SIGN_GROUPS + 1][];
        if (signs.length > 0) {
            long[][] groups = new long[SIGN_GROUPS + 1][2];
            for (int i = 0; i < total; i++) {
                groups[group[i]][odd[i] ? 1 : 0]++;
            }
            for (int sureness = 1; sureness <= SIGN_GROUPS; sureness++) {
                boolean used = groups[sureness][0] + groups[sureness][1] > 0;
                side.put(used ? 1 : 0, 1);
                if (used) {
                    groupModels[sureness] = Models.writeFitted(side, groups[sureness], 2);
                }
            }
        }
        byte[] stream = stream(gapSymbols, magnitudeSymbols, tables, groupModels, classes, classModel, signs, signModel);
        side.golomb(stream.length, 8);
        BitBuffer extras = new BitBuffer();
        for (int i = 0; i < total; i++) {
            extras.put(gaps[i] - Models.STARTS[gapSymbols[i]], Models.bucketBits(gapSymbols[i]));
        }
        for (int i = 0; i < total; i++) {
            long start = Models.STARTS[magnitudeSymbols[i]];
            extras.put(levels.magnitudes[order[i]] - 1 - start, Models.bucketBits(magnitudeSymbols[i]));
        }
        BitBuffer raw = new BitBuffer();
        for (int i = 0; i < total; i++) {
            if (group[i] == 0) {
                raw.put(odd[i] ? 1 : 0, 1);
            }
        }
        Writer out = new Writer().bytes(side.toBytes()).bytes(stream).bytes(extras.toBytes()).bytes(raw.toBytes());
        while (out.size() < (total + MAX_PER_BYTE - 1) / MAX_PER_BYTE) {
            out.u8(0);
        }
        return out.toBytes();
    }

    private byte[] stream(
            int[] gapSymbols,
            int[] magnitudeSymbols,
            long[][] tables,
            long[][] groupModels,
            int[] classes,
            long[] classModel,
            int[] signs,
            long[] signModel) {
        Ans stack = new Ans();
        for (int sureness = SIGN_GROUPS; sureness > 0; sureness--) {
            if (groupModels[sureness] != null) {
                int[] symbols = new int[total];
                int count = 0;
                for (int i = 0; i < total; i++) {
                    if (group[i] == sureness) {
                        symbols[count++] = odd[i] ? 1 : 0;
                    }
                }
                stack.push(symbols, 0, count, groupModels[sureness]);
            }
        }
        for (int k = CONTEXTS - 1, end = total; k >= 0; k--) {
            if (counts[k] > 0) {
                int first = end - counts[k];
                stack.push(magnitudeSymbols, first, end, tables[k]);
                stack.push(gapSymbols, first, end, Models.geometric(counts[k], layout.slots[k]));
                end = first;
            }
        }
        stack.push(signs, 0, signs.length, signModel);
        stack.push(classes, 0, classes.length, classModel);
        return stack.toBytes();
    }

    private static long[] fitted(BitBuffer side, int[] symbols) {
        int most = 0;
        for (int symbol : symbols) {
            most = Math.max(most, symbol);
        }
        long[] counts = new long[most + 1];
        for (int symbol : symbols) {
            counts[symbol]++;
        }
        return Models.writeFitted(side, counts, counts.length);
    }

    /** Within a block positions and places rise together, so counting into blocks sorts. */
    private void inOrder() {
        int[] block = new int[total];
        int[] inside = new int[total];
        layout.findBlocks(levels.positions, block, inside);
        int[] begin = new int[layout.start.length + 1];
        for (int i = 0; i < total; i++) {
            begin[block[i] + 1]++;
        }
        for (int b = 1; b < begin.length; b++) {
            begin[b] += begin[b - 1];
        }
        for (int i = 0; i < total; i++) {
            order[begin[block[i]]++] = i;
        }
        int context = 0;
        int end = layout.slots[0];
        int following = 0;
        for (int i = 0; i < total; i++) {
            int place = layout.start[block[order[i]]] + inside[order[i]];
            while (place >= end) {
                context++;
                following = end;
                end += layout.slots[context];
            }
            gaps[i] = place - following;
            following = place + 1;
            counts[context]++;
        }
    }

    private void signGroups() {
        byte[] groups = new byte[total];
        boolean[] odds = new boolean[total];
        for (int i = 0, t = 0; i < total; i++) {
            while (levels.positions[i] >= shapes.offset[t + 1]) {
                t++;
            }
            odds[i] = levels.negative[i];
            if ((plans.flags[t] & SIGNS) != 0) {
                int column = (levels.positions[i] - shapes.offset[t]) % shapes.columns[t];
                int which = plans.signs[shapes.columnAt[t] + column];
                if (which > 0) {
                    groups[i] = (byte) ((which + SIGN_GROUPS - 1) % SIGN_GROUPS + 1);
                    odds[i] ^= which > SIGN_GROUPS;
                }
            }
        }
        for (int i = 0; i < total; i++) {
            group[i] = groups[order[i]];
            odd[i] = odds[order[i]];
        }
    }

    /** Returns the classes of every tensor that has such flags, in order. */
    private int[] gather(int flags) {
        int[] out = new int[plans.rows.length + plans.columns.length];
        int count = 0;
        for (int t = 0; t < shapes.tensors(); t++) {
            int has = plans.flags[t] & flags;
            for (int i = 0; (has & ROW_CLASSES) != 0 && i < shapes.rows[t]; i++) {
                out[count++] = plans.rows[shapes.rowAt[t] + i];
            }
            for (int i = 0; (has & COLUMN_CLASSES) != 0 && i < shapes.columns[t]; i++) {
                out[count++] = plans.columns[shapes.columnAt[t] + i];
            }
            for (int i = 0; (has & SIGNS) != 0 && i < shapes.columns[t]; i++) {
                out[count++] = plans.signs[shapes.columnAt[t] + i];
            }
        }
        return java.util.Arrays.copyOf(out, count);
    }

    /** Writes how many non-zeros each context has, and the magnitude tables; returns the table of each. */
    private long[][] writeContexts(BitBuffer side, int[] symbols) {
        int top = 0;
        for (int symbol : symbols) {
            top = Math.max(top, symbol + 1);
        }
        long[][] histogram = new long[CONTEXTS][top];
        int first = -1;
        int last = 0;
        for (int k = 0, i = 0; k < CONTEXTS; k++) {
            for (int n = 0; n < counts[k]; n++) {
                histogram[k][symbols[i++]]++;
            }
            if (counts[k] > 0) {
                first = first < 0 ? k : first;
                last = k;
            }
        }
        int[] opened = share(histogram, first);
        side.put(first, 5);
        side.put(last, 5);
        List<long[]> made = new ArrayList<>();
        long[][] tables = new long[CONTEXTS][];
        for (int k = first; k <= last; k++) {
            side.golomb(counts[k], 4);
            if (counts[k] == 0) {
                continue;
            }
            boolean isNew = opened[k] == k;
            if (k != first) {
                side.put(isNew ? 1 : 0, 1);
            }
            if (isNew) {
                int end = top;
                while (histogram[k][end - 1] == 0) {
                    end--;
                }
                made.add(Models.writeFitted(side, histogram[k], end));
            }
            tables[k] = made.get(made.size() - 1);
        }
        return tables;
    }

    /** Returns for each context the one whose table it uses, and adds its counts to that one's, where that is less. */
    private int[] share(long[][] histogram, int first) {
        int[] opened = new int[CONTEXTS];
        int current = first;
        for (int k = first; k < CONTEXTS; k++) {
            if (counts[k] == 0) {
                continue;
            }
            if (k > first) {
                long[] together = new long[histogram[k].length];
                for (int symbol = 0; symbol < together.length; symbol++) {
                    together[symbol] = histogram[current][symbol] + histogram[k][symbol];
                }
                if (tableCost(together) <= tableCost(histogram[current]) + tableCost(histogram[k])) {
                    histogram[current] = together;
                } else {
                    current = k;
                }
            }
            opened[k] = current;
        }
        return opened;
    }

    private static double tableCost(long[] counts) {
        long all = 0;
        double bits = 6.0;
        int last = 0;
        for (int symbol = 0; symbol < counts.length; symbol++) {
            if (counts[symbol] > 0) {
                all += counts[symbol];
                bits -= counts[symbol] * Log2.of(counts[symbol]);
                last = symbol;
            }
        }
        return bits + all * Log2.of(all) + 4 * last;
    }
}
