package flmobile.codecs.ecsq;

import java.math.BigInteger;

/** The low-rank part of an update, in integers; see {@code fl_mobile/codecs/ecsq/lowrank.py}. */
final class Factors {
    private static final int BASIS_BITS = 14;
    private static final int STEP_PARTS = 32;

    /** Columns of U and V for every tensor, 0 for none. */
    final int[] ranks;
    private final int ratio;
    private final int firstShift;
    private final int secondShift;

    Factors(int[] ranks, int ratio, int firstShift, int secondShift) {
        this.ranks = ranks;
        this.ratio = ratio;
        this.firstShift = firstShift;
        this.secondShift = secondShift;
    }

    boolean any() {
        for (int rank : ranks) {
            if (rank > 0) {
                return true;
            }
        }
        return false;
    }

    /** Returns {@code L} of all tensors end to end, from the levels that lie behind them. */
    double[] lowRank(Levels levels, Shapes tensors, float step) {
        int total = tensors.values();
        long[] numbers = new long[tensors.withFactors(ranks).values() - total];
        for (int i = 0; i < levels.count(); i++) {
            if (levels.positions[i] >= total) {
                numbers[levels.positions[i] - total] = levels.negative[i] ? -levels.magnitudes[i] : levels.magnitudes[i];
            }
        }
        double scale = (double) step * ratio / STEP_PARTS * 0x1p-22;
        double[] low = new double[total];
        int at = 0;
        for (int t = 0; t < ranks.length; t++) {
            int rank = ranks[t];
            if (rank == 0) {
                continue;
            }
            int rows = tensors.rows[t];
            int columns = tensors.columns[t];
            int right = at + rows * rank;
            for (int i = at; i < right; i++) {
                long shift = Math.abs(numbers[i]) == 1 ? firstShift : secondShift;
                numbers[i] = 256 * numbers[i] + Long.signum(numbers[i]) * shift;
            }
            basis(numbers, right, columns, rank);
            int out = tensors.offset[t];
            for (int row = 0; row < rows; row++) {
                for (int column = 0; column < columns; column++) {
                    long sum = 0; // below 2^47, so it is exact in float64 too
                    for (int k = 0; k < rank; k++) {
                        sum += numbers[at + row * rank + k] * numbers[right + column * rank + k];
                    }
                    low[out++] = sum * scale;
                }
            }
            at = right + columns * rank;
        }
        return low;
    }

    /** Scales the columns of V to length 2^14, in place: {@code ⌊(v·2^22 + ⌊n/2⌋) / n⌋}, {@code n = ⌊√(2^16·Σv²)⌋}. */
    private static void basis(long[] numbers, int at, int columns, int rank) {
        for (int k = 0; k < rank; k++) {
            long square = 0;
            for (int column = 0; column < columns; column++) {
                long level = numbers[at + column * rank + k];
                square += level * level;
            }
            long norm = squareRoot(BigInteger.valueOf(square).shiftLeft(16));
            for (int column = 0; column < columns; column++) {
                int i = at + column * rank + k;
                numbers[i] = norm == 0 ? 0 : Math.floorDiv((numbers[i] << BASIS_BITS + 8) + norm / 2, norm);
            }
        }
    }

    /** Returns {@code ⌊√square⌋} of a number below 2^80. */
    private static long squareRoot(BigInteger square) {
        long root = (long) Math.sqrt(square.doubleValue());
        while (BigInteger.valueOf(root).pow(2).compareTo(square) > 0) {
            root--;
        }
        while (BigInteger.valueOf(root + 1).pow(2).compareTo(square) <= 0) {
            root++;
        }
        return root;
    }
}
