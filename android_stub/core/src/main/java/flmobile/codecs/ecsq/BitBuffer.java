package flmobile.codecs.ecsq;

import flmobile.core.WireException;
import java.util.Arrays;

/** Bits, most significant first, written into a buffer that grows. Exp-Golomb codes as in H.264, section 9.1. */
final class BitBuffer {
    private byte[] data = new byte[1024];
    private int at;

    /** Returns how many bytes the bits take. */
    int bytes() {
        return (at + 7) / 8;
    }

    /** Writes {@code value} as {@code width ≤ 56} bits. */
    void put(long value, int width) {
        if (at + width + 8 > 8 * data.length) {
            data = Arrays.copyOf(data, 2 * data.length);
        }
        for (int left = width; left > 0; ) {
            int room = 8 - (at & 7);
            int part = Math.min(room, left);
            left -= part;
            data[at >> 3] |= (byte) ((value >> left & (1 << part) - 1) << room - part);
            at += part;
        }
    }

    /** Writes an Exp-Golomb code of an order. */
    void golomb(long value, int order) {
        long shifted = value + (1L << order);
        int width = Models.bitLength(shifted);
        put(0, width - 1 - order);
        put(shifted, width);
    }

    /** Returns the bytes, padded with zeros. */
    byte[] toBytes() {
        return Arrays.copyOf(data, bytes());
    }

    /** Reads what the writer wrote; anything else is a {@link WireException}. */
    static final class Source {
        private static final int MAX_ZEROS = 40;
        private final byte[] data;
        private final int begin;
        private final int length;
        private long at;

        Source(byte[] data, int begin, int end) {
            this.data = data;
            this.begin = begin;
            this.length = end - begin;
        }

        /** Returns the number of bytes in all. */
        int length() {
            return length;
        }

        /** Returns the next {@code width ≤ 56} bits. */
        long take(int width) {
            if (at + width > 8L * length) {
                throw new WireException("truncated", "the side bits or raw bits go on behind the end of the payload");
            }
            long value = 0;
            for (int left = width; left > 0; ) {
                int room = 8 - (int) (at & 7);
                int part = Math.min(room, left);
                left -= part;
                int octet = data[begin + (int) (at >> 3)] & 0xFF;
                value = value << part | octet >> room - part & (1 << part) - 1;
                at += part;
            }
            return value;
        }

        /** Returns whether the next bit is 1. */
        boolean bit() {
            return take(1) != 0;
        }

        /** Returns an Exp-Golomb number of at most {@code limit}. */
        long golomb(int order, long limit) {
            int zeros = 0;
            while (!bit()) {
                if (++zeros > MAX_ZEROS) {
                    throw new WireException("value", "a number starts with more than 40 zero bits");
                }
            }
            long value = (1L << zeros + order) - (1L << order) + take(zeros + order);
            if (value > limit) {
                throw new WireException("value", "a number is above its limit");
            }
            return value;
        }

        /** Moves to the next byte; returns its place in the array. The bits between are not looked at. */
        int toByte() {
            at = at + 7 & ~7L;
            return begin + (int) (at >> 3);
        }

        /** Moves on by whole bytes. */
        void skipBytes(int count) {
            at += 8L * count;
        }

        /** Reads the bits up to the next byte, which must be zeros. */
        void padding() {
            if (take((int) (-at & 7)) != 0) {
                throw new WireException("value", "the padding of the raw bits is not zero");
            }
        }
    }
}
