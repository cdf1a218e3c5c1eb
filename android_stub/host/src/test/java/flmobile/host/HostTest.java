package flmobile.host;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Examples are read as NumPy writes them, or refused in one line. */
class HostTest {
    @TempDir
    Path folder;

    private Path npz(String xHead, byte[] x, String yHead, byte[] y) throws IOException {
        Path path = folder.resolve("client.npz");
        try (OutputStream out = Files.newOutputStream(path); ZipOutputStream zip = new ZipOutputStream(out)) {
            write(zip, "x.npy", xHead, x);
            write(zip, "y.npy", yHead, y);
        }
        return path;
    }

    private static void write(ZipOutputStream zip, String name, String head, byte[] data) throws IOException {
        byte[] text = (head + "\n").getBytes(StandardCharsets.ISO_8859_1);
        ByteBuffer out = ByteBuffer.allocate(10 + text.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        out.put(new byte[] {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0}).putShort((short) text.length).put(text).put(data);
        zip.putNextEntry(new ZipEntry(name));
        zip.write(out.array());
    }

    private static String head(String descr, String shape) {
        return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    }

    @Test
    void picturesAndLabels() throws IOException {
        byte[] labels = {3, 0, 0, 0, (byte) 0xFF, (byte) 0xFF, (byte) 0xFF, (byte) 0xFF};
        NpzExamples read = NpzExamples.read(npz(head("|u1", "2, 2"), new byte[] {0, 1, 2, (byte) 255}, head("<i4", "2,"), labels));
        assertEquals("2 3 -1", read.count() + " " + read.label(0) + " " + read.label(1));
        ByteBuffer out = ByteBuffer.allocate(8).order(ByteOrder.nativeOrder());
        read.put(1, "float32", out);
        out.flip();
        assertEquals("2.0 255.0", out.getFloat() + " " + out.getFloat());
    }

    @Test
    void weightsAreNotIgnored() throws IOException {
        Path path = folder.resolve("heavy.npz");
        try (OutputStream out = Files.newOutputStream(path); ZipOutputStream zip = new ZipOutputStream(out)) {
            write(zip, "x.npy", head("|u1", "1, 2"), new byte[2]);
            write(zip, "y.npy", head("<i4", "1,"), new byte[4]);
            write(zip, "weight.npy", head("<f4", "1,"), new byte[4]);
        }
        assertTrue(assertThrows(IOException.class, () -> NpzExamples.read(path)).getMessage().contains("'weight'"));
    }

    @Test
    void whatIsNoExamplesIsOneLine() throws IOException {
        byte[] four = new byte[4];
        String[][] wrong = {
            {head("|u1", "2, 2"), head("<i4", "2,")},
            {head("|u1", "4"), head("<f4", "1,")},
            {head("|O", "4,"), head("<i4", "1,")},
            {head("|u1", "4, 99999999, 99999999, 999999"), head("<i4", "1,")},
            {"import os", head("<i4", "1,")},
        };
        for (String[] heads : wrong) {
            Path path = npz(heads[0], four, heads[1], four);
            String message = assertThrows(IOException.class, () -> NpzExamples.read(path)).getMessage();
            assertEquals(1, message.split("\n").length, message);
        }
        Files.write(folder.resolve("x.npz"), four);
        assertThrows(IOException.class, () -> NpzExamples.read(folder.resolve("x.npz")));
    }
}
