package flmobile.codecs.ecsq;

/** The non-zeros of a quantized update: positions in all tensors laid end to end, magnitudes ≥ 1, and signs. */
final class Levels {
    final int[] positions;
    final int[] magnitudes;
    final boolean[] negative;

    Levels(int[] positions, int[] magnitudes, boolean[] negative) {
        this.positions = positions;
        this.magnitudes = magnitudes;
        this.negative = negative;
    }

    int count() {
        return positions.length;
    }
}
