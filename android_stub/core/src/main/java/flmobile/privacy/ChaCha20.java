package flmobile.privacy;

/** The keystream of ChaCha20 (RFC 8439), counter and nonce 0: a key is used for one purpose, once. */
final class ChaCha20 {
    private static final int[] CONSTANTS = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    private final int[] state = new int[16];
    private final int[] block = new int[16];
    private int used = 16;

    ChaCha20(byte[] key) {
        System.arraycopy(CONSTANTS, 0, state, 0, 4);
        for (int i = 0; i < 32; i++) {
            state[4 + i / 4] |= (key[i] & 0xFF) << 8 * (i % 4);
        }
    }

    /** Returns the next 8 bytes as a little-endian number. */
    long next() {
        if (used == 16) {
            fill();
        }
        used += 2;
        return block[used - 2] & 0xFFFFFFFFL | (long) block[used - 1] << 32;
    }

    private void fill() {
        System.arraycopy(state, 0, block, 0, 16);
        for (int i = 0; i < 10; i++) {
            quarter(0, 4, 8, 12);
            quarter(1, 5, 9, 13);
            quarter(2, 6, 10, 14);
            quarter(3, 7, 11, 15);
            quarter(0, 5, 10, 15);
            quarter(1, 6, 11, 12);
            quarter(2, 7, 8, 13);
            quarter(3, 4, 9, 14);
        }
        for (int i = 0; i < 16; i++) {
            block[i] += state[i];
        }
        state[12]++;
        used = 0;
    }

    private void quarter(int a, int b, int c, int d) {
        block[a] += block[b];
        block[d] = Integer.rotateLeft(block[d] ^ block[a], 16);
        block[c] += block[d];
        block[b] = Integer.rotateLeft(block[b] ^ block[c], 12);
        block[a] += block[b];
        block[d] = Integer.rotateLeft(block[d] ^ block[a], 8);
        block[c] += block[d];
        block[b] = Integer.rotateLeft(block[b] ^ block[c], 7);
    }
}
