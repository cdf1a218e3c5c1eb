package flmobile.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A cursor over received bytes: the one checked gate through which decoders read. Little endian. */
public final class Reader {
    private final byte[] data;
    private final int end;
    private int at;

    public Reader(byte[] data) {
        this(data, 0, data.length);
    }

    public Reader(byte[] data, int at, int end) {
        this.data = data;
        this.at = at;
        this.end = end;
    }

    /** Returns how many bytes have not been read. */
    public int left() {
        return end - at;
    }

    /** Returns the array that is read from; see {@link #take}. */
    public byte[] data() {
        return data;
    }

    /** Returns where the next {@code count} bytes begin in {@link #data}, and moves behind them. */
    public int take(long count) {
        if (count < 0 || count > left()) {
            throw new WireException("truncated", "need " + count + " bytes, " + left() + " are left");
        }
        at += (int) count;
        return at - (int) count;
    }

    /** Returns where the next byte is in {@link #data}. */
    public int at() {
        return at;
    }

    /** Returns a copy of the next bytes. */
    public byte[] bytes(int count) {
        byte[] out = new byte[count < 0 || count > left() ? 0 : count];
        System.arraycopy(data, take(count), out, 0, count);
        return out;
    }

    /** Returns a reader of the next bytes. */
    public Reader slice(long count) {
        int from = take(count);
        return new Reader(data, from, at);
    }

    /** Returns an unsigned byte. */
    public int u8() {
        return data[take(1)] & 0xFF;
    }

    /** Returns an unsigned 32-bit number. */
    public long u32() {
        return buffer(4).getInt() & 0xFFFFFFFFL;
    }

    /** Returns a 64-bit number. */
    public long u64() {
        return buffer(8).getLong();
    }

    /** Returns so many float32. */
    public float[] floats(int count) {
        ByteBuffer buffer = buffer(4L * count);
        float[] out = new float[count];
        for (int i = 0; i < count; i++) { // not asFloatBuffer: in JavaScript that must begin at a multiple of 4
            out[i] = buffer.getFloat();
        }
        return out;
    }

    /** Returns so many float32, none of them NaN or infinite. */
    public float[] finite(int count) {
        float[] out = floats(count);
        for (float value : out) {
            if (Float.isNaN(value) || Float.isInfinite(value)) {
                throw new WireException("value", "NaN or Inf among " + count + " float32 values");
            }
        }
        return out;
    }

    /** Returns an unsigned LEB128 number of at most {@code limit}. */
    public int varint(int limit) {
        long value = 0;
        for (int shift = 0; shift < 35; shift += 7) {
            int next = u8();
            value |= (long) (next & 0x7F) << shift;
            if (next < 0x80) {
                if (value > limit) {
                    throw new WireException("value", "number " + value + " is above its limit " + limit);
                }
                return (int) value;
            }
        }
        throw new WireException("value", "number is longer than 5 bytes");
    }

    /** Throws if bytes are left over. */
    public void end() {
        if (left() != 0) {
            throw new WireException("trailing", left() + " bytes after the last tensor");
        }
    }

    private ByteBuffer buffer(long count) {
        int from = take(count);
        return ByteBuffer.wrap(data, from, (int) count).order(ByteOrder.LITTLE_ENDIAN);
    }
}
