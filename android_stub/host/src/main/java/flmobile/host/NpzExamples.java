package flmobile.host;

import flmobile.client.Examples;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** A NumPy {@code .npz} file with {@code x} and whole labels {@code y}, as {@code fl-mobile serve --deal} writes them. */
final class NpzExamples implements Examples {
    private static final Pattern HEADER = Pattern.compile(
            "\\{'descr': '([^']+)', 'fortran_order': False, 'shape': \\(([0-9, ]*)\\), \\}\\s*");
    private final Array x;
    private final Array y;
    private final int values;

    private NpzExamples(Array x, Array y) {
        this.x = x;
        this.y = y;
        values = y.count == 0 ? 0 : x.count / y.count;
    }

    /**
     * Reads a file.
     *
     * @throws IOException it is none, or does not hold examples
     */
    static NpzExamples read(Path path) throws IOException {
        try (ZipFile zip = new ZipFile(path.toFile())) {
            Array x = Array.read(zip, "x");
            Array y = Array.read(zip, "y");
            if (zip.getEntry("weight.npy") != null) {
                throw new IOException("it holds 'weight', which the coordinator's program does not take: leave it out");
            }
            boolean whole = y.shape.length == 1 && (y.kind == 'i' || y.kind == 'u');
            if (!whole || y.count == 0 || x.shape.length == 0 || x.shape[0] != y.count) {
                throw new IOException("expected as many whole labels as examples, at least one");
            }
            return new NpzExamples(x, y);
        } catch (IOException | RuntimeException unreadable) {
            throw new IOException(path + ": expected arrays 'x' and 'y' (" + unreadable.getMessage() + ")", unreadable);
        }
    }

    @Override
    public int count() {
        return y.count;
    }

    @Override
    public int label(int example) {
        return (int) y.get(example);
    }

    @Override
    public void put(int example, String dtype, ByteBuffer out) {
        if (out.remaining() < values * (dtype.equals("uint8") ? 1 : 4)) {
            throw new IllegalArgumentException("the program takes smaller examples than these of " + values + " values");
        }
        for (int i = example * values; i < (example + 1) * values; i++) {
            if (dtype.equals("uint8")) {
                out.put((byte) x.get(i));
            } else {
                out.putFloat((float) x.get(i));
            }
        }
    }

    private static final class Array {
        private final ByteBuffer data;
        private final char kind;
        private final int width;
        private final int[] shape;
        private final int count;

        private Array(ByteBuffer data, char kind, int width, int[] shape) throws IOException {
            this.data = data;
            this.kind = kind;
            this.width = width;
            this.shape = shape;
            long all = 1;
            for (int length : shape) {
                all = Math.multiplyExact(all, (long) length);
            }
            if (all * width != data.remaining()) {
                throw new IOException("its length does not fit its shape");
            }
            count = (int) all;
        }

        static Array read(ZipFile zip, String name) throws IOException {
            ZipEntry entry = zip.getEntry(name + ".npy");
            if (entry == null) {
                throw new IOException("there is no '" + name + "'");
            }
            ByteBuffer bytes = ByteBuffer.wrap(all(zip.getInputStream(entry))).order(ByteOrder.LITTLE_ENDIAN);
            int version = bytes.get(6);
            int length = version == 1 ? bytes.getShort(8) & 0xFFFF : bytes.getInt(8);
            int begin = version == 1 ? 10 : 12;
            byte[] head = new byte[length];
            bytes.position(begin);
            bytes.get(head);
            Matcher told = HEADER.matcher(new String(head, StandardCharsets.ISO_8859_1));
            if (!told.matches() || !told.group(1).matches("[<|][fiu][1248]")) {
                throw new IOException("'" + name + "' is no little-endian array in C order");
            }
            String text = told.group(2).replace(" ", "");
            String[] lengths = text.isEmpty() ? new String[0] : text.split(",");
            int[] shape = new int[lengths.length];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = Integer.parseInt(lengths[i]);
            }
            char kind = told.group(1).charAt(1);
            return new Array(bytes.slice().order(ByteOrder.LITTLE_ENDIAN), kind, told.group(1).charAt(2) - '0', shape);
        }

        double get(int i) {
            int at = i * width;
            if (kind == 'f') {
                return width == 4 ? data.getFloat(at) : data.getDouble(at);
            }
            long mask = width == 8 ? -1 : (1L << 8 * width) - 1;
            long value = width == 1 ? data.get(at) : width == 2 ? data.getShort(at) : width == 4 ? data.getInt(at) : data.getLong(at);
            return kind == 'u' ? value & mask : value;
        }

        private static byte[] all(InputStream stream) throws IOException {
            try (InputStream in = stream) {
                ByteArrayOutputStream out = new ByteArrayOutputStream();
                byte[] part = new byte[1 << 16];
                for (int count = in.read(part); count >= 0; count = in.read(part)) {
                    out.write(part, 0, count);
                }
                return out.toByteArray();
            }
        }
    }
}
