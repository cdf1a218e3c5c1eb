package flmobile.core;

import java.util.Arrays;

/** Bytes that grow; little endian. */
public final class Writer {
    private byte[] data = new byte[256];
    private int size;

    /** Returns how many bytes have been written. */
    public int size() {
        return size;
    }

    public Writer u8(int value) {
        room(1);
        data[size++] = (byte) value;
        return this;
    }

    public Writer u32(long value) {
        for (int shift = 0; shift < 32; shift += 8) {
            u8((int) (value >>> shift));
        }
        return this;
    }

    public Writer u64(long value) {
        return u32(value).u32(value >>> 32);
    }

    public Writer f32(float value) {
        return u32(Float.floatToRawIntBits(value));
    }

    /** Writes float32, end to end. */
    public Writer floats(float[] values) {
        room(4 * values.length);
        for (float value : values) {
            f32(value);
        }
        return this;
    }

    public Writer bytes(byte[] more) {
        room(more.length);
        System.arraycopy(more, 0, data, size, more.length);
        size += more.length;
        return this;
    }

    /** Writes an unsigned LEB128 number. */
    public Writer varint(int value) {
        while (value >= 0x80) {
            u8(value & 0x7F | 0x80);
            value >>>= 7;
        }
        return u8(value);
    }

    /** Returns all that has been written. */
    public byte[] toBytes() {
        return Arrays.copyOf(data, size);
    }

    private void room(int more) {
        if (size + more > data.length) {
            data = Arrays.copyOf(data, Math.max(2 * data.length, size + more));
        }
    }
}
