package flmobile.codecs;

import flmobile.core.Reader;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.util.Arrays;
import java.util.zip.DataFormatException;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/** zlib streams (RFC 1950); how they were packed is the packer's affair, so two machines may send different bytes. */
public final class Deflated {
    private Deflated() {}

    /** Returns a zlib stream. */
    static byte[] pack(byte[] data, int level) {
        Deflater deflater = new Deflater(level);
        try {
            deflater.setInput(data);
            deflater.finish();
            Writer out = new Writer();
            byte[] part = new byte[8192];
            while (!deflater.finished()) {
                int count = deflater.deflate(part);
                out.bytes(Arrays.copyOf(part, count));
            }
            return out.toBytes();
        } finally {
            deflater.end();
        }
    }

    /** Returns what all that is left inflates to: at most {@code limit} bytes, in memory that grows with them. */
    public static byte[] unpack(Reader reader, long limit) {
        Inflater inflater = new Inflater();
        try {
            int length = reader.left();
            inflater.setInput(reader.data(), reader.take(length), length);
            Writer out = new Writer();
            byte[] part = new byte[8192];
            while (!inflater.finished()) {
                int count = inflater.inflate(part);
                if (count == 0 && !inflater.finished()) {
                    throw new WireException("inflate", "the zlib stream is cut off");
                }
                if (out.size() + (long) count > limit) {
                    throw new WireException("size", "the payload inflates past the " + limit + " bytes its spec allows");
                }
                out.bytes(Arrays.copyOf(part, count));
            }
            if (inflater.getRemaining() > 0) {
                throw new WireException("inflate", "the zlib stream is followed by other bytes");
            }
            return out.toBytes();
        } catch (DataFormatException damaged) {
            throw new WireException("inflate", "not a zlib stream: " + damaged.getMessage());
        } finally {
            inflater.end();
        }
    }

    /** Returns the length of a stream of {@code count} bytes at most. */
    static long maxBytes(long count) {
        return count + 5 * (count / 16_000 + 2) + 6;
    }
}
