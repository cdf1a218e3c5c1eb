package flmobile.codecs.ecsq;

import static flmobile.codecs.ecsq.Plans.COLUMN_CLASSES;
import static flmobile.codecs.ecsq.Plans.CONTEXTS;
import static flmobile.codecs.ecsq.Plans.ROW_CLASSES;
import static flmobile.codecs.ecsq.Plans.SIGNS;

import flmobile.core.WireException;

/** Bytes to levels; whatever arrives, only a {@link WireException} comes out. The layout is in the Python package. */
final class LevelReader {
    /** Non-zeros a payload may hold per byte of its own length. */
    static final int MAX_PER_BYTE = 256;
    static final int SIGN_GROUPS = 3;
    /** Largest magnitude. */
    static final int MAX_LEVEL = 1 << 20;
    private static final int MAX_COLUMNS = 1 << 20;
    private static final int MAGNITUDE_SYMBOLS = Models.bucketOf(MAX_LEVEL - 1) + 1;

    private final BitBuffer.Source source;
    private final byte[] data;
    private final int end;
    private final Shapes shapes;
    private final Plans plans;
    private final int[] counts = new int[CONTEXTS];
    private final long[][] tables = new long[CONTEXTS][];
    final Factors factors;
    final Levels levels;

    LevelReader(byte[] data, int begin, int end, Shapes tensors) {
        source = new BitBuffer.Source(data, begin, end);
        this.data = data;
        this.end = end;
        factors = readFactors(tensors);
        shapes = tensors.withFactors(factors.ranks);
        plans = readHeads();
        long[] classModel = null;
        long[] signModel = null;
        if (plans.any(ROW_CLASSES | COLUMN_CLASSES)) {
            classModel = Models.readTable(source, Plans.CLASSES);
        }
        boolean hasSigns = plans.any(SIGNS);
        if (hasSigns) {
            signModel = Models.readTable(source, Plans.SIGN_CLASSES);
        }
        int total = readContexts();
        long[][] groupModels = new long[SIGN_GROUPS + 1][];
        for (int group = 1; hasSigns && group <= SIGN_GROUPS; group++) {
            if (source.bit()) {
                groupModels[group] = Models.readTable(source, 2);
            }
        }
        Ans stack = readStream();
        popClasses(stack, classModel, signModel);
        levels = readLevels(stack, total, groupModels);
        if (!stack.isEmpty()) {
            throw new WireException("stream", "the ANS stream does not end where its symbols do");
        }
        checkEnd(total);
    }

    private Factors readFactors(Shapes tensors) {
        int[] ranks = new int[tensors.tensors()];
        if (!source.bit()) {
            return new Factors(ranks, 1, 0, 0);
        }
        int ratio = (int) source.take(8);
        int first = (int) source.take(8) - 128;
        int second = (int) source.take(8) - 128;
        for (int t = 0; t < ranks.length; t++) {
            if (tensors.isMatrix(t)) {
                ranks[t] = (int) source.take(4);
                int most = Math.min(tensors.rows[t], tensors.columns[t]);
                if (ranks[t] > 0 && (ranks[t] > most || tensors.columns[t] > MAX_COLUMNS)) {
                    throw new WireException("value", "a tensor cannot have factors of that rank");
                }
            }
        }
        if (ratio == 0) {
            throw new WireException("value", "the step of the factors must be above 0");
        }
        return new Factors(ranks, ratio, first, second);
    }

    private Plans readHeads() {
        Plans read = new Plans(shapes);
        for (int t = 0; t < shapes.tensors(); t++) {
            read.level[t] = (int) source.take(5);
            if (read.level[t] > 0 && shapes.isMatrix(t)) {
                read.flags[t] = (int) source.take(3);
            }
        }
        return read;
    }

    /** Reads non-zeros and table of each context; returns how many there are in all. */
    private int readContexts() {
        int first = (int) source.take(5);
        int last = (int) source.take(5);
        long[] table = null;
        long total = 0;
        for (int context = first; context <= last; context++) {
            counts[context] = (int) source.golomb(4, shapes.values());
            total += counts[context];
            if (counts[context] > 0) {
                if (table == null || source.bit()) {
                    table = Models.readTable(source, MAGNITUDE_SYMBOLS);
                }
                tables[context] = table;
            }
        }
        if (table == null) {
            throw new WireException("value", "a coded payload without a single non-zero");
        }
        if (total > (long) MAX_PER_BYTE * source.length()) {
            throw new WireException("size", "a payload claims more than 256 non-zeros for each of its bytes");
        }
        return (int) total;
    }

    private Ans readStream() {
        int length = (int) source.golomb(8, source.length());
        int at = source.toByte();
        if (length > end - at) {
            throw new WireException("truncated", "the ANS stream is longer than the payload");
        }
        if (length > 0 && data[at + length - 1] == 0) {
            throw new WireException("value", "the ANS stream ends in a zero byte");
        }
        source.skipBytes(length);
        return new Ans(data, at, length);
    }

    private void popClasses(Ans stack, long[] classModel, long[] signModel) {
        for (int t = 0; t < shapes.tensors(); t++) {
            if ((plans.flags[t] & ROW_CLASSES) != 0) {
                popInto(stack, plans.rows, shapes.rowAt[t], shapes.rows[t], classModel);
            }
            if ((plans.flags[t] & COLUMN_CLASSES) != 0) {
                popInto(stack, plans.columns, shapes.columnAt[t], shapes.columns[t], classModel);
            }
        }
        for (int t = 0; t < shapes.tensors(); t++) {
            if ((plans.flags[t] & SIGNS) != 0) {
                popInto(stack, plans.signs, shapes.columnAt[t], shapes.columns[t], signModel);
            }
        }
    }

    private static void popInto(Ans stack, byte[] classes, int at, int length, long[] model) {
        int[] symbols = new int[length];
        stack.pop(symbols, 0, length, model);
        for (int i = 0; i < length; i++) {
            classes[at + i] = (byte) symbols[i];
        }
    }

    private Levels readLevels(Ans stack, int total, long[][] groupModels) {
        Layout layout = new Layout(shapes, plans);
        for (int k = 0; k < CONTEXTS; k++) {
            if (counts[k] > layout.slots[k]) {
                throw new WireException("value", "a context has more non-zeros than places");
            }
        }
        int[] gapSymbols = new int[total];
        int[] magnitudes = new int[total];
        for (int k = 0, first = 0; k < CONTEXTS; k++) {
            if (counts[k] > 0) {
                stack.pop(gapSymbols, first, first + counts[k], Models.geometric(counts[k], layout.slots[k]));
                stack.pop(magnitudes, first, first + counts[k], tables[k]);
                first += counts[k];
            }
        }
        int[] positions = takePlaces(gapSymbols, layout.slots);
        for (int i = 0; i < total; i++) {
            magnitudes[i] = 1 + (int) takeNumber(magnitudes[i]);
        }
        source.padding();
        int[] tensor = new int[total];
        layout.toPositions(positions, tensor);
        return new Levels(positions, magnitudes, popSigns(stack, positions, tensor, groupModels));
    }

    private long takeNumber(int symbol) {
        long start = Models.STARTS[symbol];
        return symbol < Models.LINEAR ? start : start + source.take(Models.bucketBits(symbol));
    }

    /** Returns rising places from gaps; each context must end within its own places. */
    private int[] takePlaces(int[] gapSymbols, int[] slots) {
        int[] places = new int[gapSymbols.length];
        int begin = 0;
        boolean outside = false;
        for (int k = 0, i = 0; k < CONTEXTS; k++) {
            long place = begin - 1L;
            for (int n = 0; n < counts[k]; n++, i++) {
                place += takeNumber(gapSymbols[i]) + 1;
                outside |= place >= (long) begin + slots[k];
                places[i] = (int) Math.min(place, Integer.MAX_VALUE);
            }
            begin += slots[k];
        }
        if (outside) {
            throw new WireException("value", "a non-zero lies outside of the places of its context");
        }
        return places;
    }

    private boolean[] popSigns(Ans stack, int[] positions, int[] tensor, long[][] groupModels) {
        int total = positions.length;
        boolean[] negative = new boolean[total];
        byte[] group = new byte[total];
        int[] members = new int[SIGN_GROUPS + 1];
        for (int i = 0; i < total; i++) {
            int t = tensor[i];
            if ((plans.flags[t] & SIGNS) != 0) {
                int column = (positions[i] - shapes.offset[t]) % shapes.columns[t];
                int which = plans.signs[shapes.columnAt[t] + column];
                group[i] = (byte) (which > SIGN_GROUPS ? which - SIGN_GROUPS : which);
                negative[i] = which > SIGN_GROUPS;
            }
            members[group[i]]++;
        }
        for (int which = 1; which <= SIGN_GROUPS; which++) {
            if (groupModels[which] == null) {
                continue;
            }
            int[] symbols = new int[members[which]];
            stack.pop(symbols, 0, symbols.length, groupModels[which]);
            for (int i = 0, at = 0; i < total; i++) {
                if (group[i] == which) {
                    negative[i] ^= symbols[at++] > 0;
                }
            }
        }
        for (int i = 0; i < total; i++) {
            if (group[i] == 0) {
                negative[i] = source.bit();
            }
        }
        source.padding();
        return negative;
    }

    private void checkEnd(int total) {
        int at = source.toByte();
        boolean zeros = true;
        for (int i = at; i < end; i++) {
            zeros &= data[i] == 0;
        }
        int least = (total + MAX_PER_BYTE - 1) / MAX_PER_BYTE;
        if (at < end && (!zeros || source.length() != least)) {
            throw new WireException("trailing", "there are bytes after the signs");
        }
    }
}
