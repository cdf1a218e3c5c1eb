package flmobile.app;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import flmobile.client.Examples;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.crypto.SecretKey;
import javax.crypto.spec.SecretKeySpec;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** On the disk nothing can be read of an example; what was changed there is none. */
class ExampleStoreTest {
    @TempDir
    Path folder;

    private SecretKey key = new SecretKeySpec(new byte[32], "AES");
    private final ExampleStore.Keys keys = new ExampleStore.Keys() {
        @Override
        public SecretKey get() {
            return key;
        }

        @Override
        public void delete() {
            key = new SecretKeySpec(new byte[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, "AES");
        }
    };

    private ExampleStore store() {
        return new ExampleStore(folder, keys, 26);
    }

    private List<Path> files() throws IOException {
        try (Stream<Path> found = Files.list(folder)) {
            return found.sorted().collect(Collectors.toList());
        }
    }

    private static byte[] frame(String letters) {
        return letters.getBytes(StandardCharsets.US_ASCII);
    }

    @Test
    void whatWasKeptComesBack() throws IOException {
        store().add(3, frame("abcdefghijklmnopqrstuvwxyz"));
        store().add(700, frame("ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
        Examples open = store().open();
        assertEquals(2, open.count());
        assertEquals(3, open.label(0));
        assertEquals(700, open.label(1));
        ByteBuffer pixels = ByteBuffer.allocate(26);
        open.put(1, "uint8", pixels);
        assertEquals("ABCDEFGHIJKLMNOPQRSTUVWXYZ", new String(pixels.array(), StandardCharsets.US_ASCII));
        ByteBuffer floats = ByteBuffer.allocate(4 * 26);
        open.put(0, "float32", floats);
        assertEquals('z', floats.getFloat(4 * 25));
        assertThrows(IllegalArgumentException.class, () -> open.put(0, "uint8", ByteBuffer.allocate(25)));
    }

    @Test
    void theDiskHoldsNothingOfIt() throws IOException {
        store().add(3, frame("abcdefghijklmnopqrstuvwxyz"));
        store().add(3, frame("abcdefghijklmnopqrstuvwxyz"));
        String first = new String(Files.readAllBytes(files().get(0)), StandardCharsets.ISO_8859_1);
        assertFalse(first.contains("abc"));
        assertFalse(first.equals(new String(Files.readAllBytes(files().get(1)), StandardCharsets.ISO_8859_1)), "the same nonce twice");
    }

    @Test
    void damagedFilesAreNoExamples() throws IOException {
        store().add(3, frame("abcdefghijklmnopqrstuvwxyz"));
        store().add(4, frame("abcdefghijklmnopqrstuvwxyz"));
        byte[] sealed = Files.readAllBytes(files().get(0));
        for (int at = 0; at < sealed.length; at++) {
            byte[] changed = sealed.clone();
            changed[at] ^= 1;
            Files.write(files().get(0), changed);
            assertEquals(1, store().open().count(), "byte " + at);
        }
        for (int length : new int[] {0, 5, 12, 20, sealed.length - 1}) {
            Files.write(files().get(0), java.util.Arrays.copyOf(sealed, length));
            assertEquals(1, store().open().count(), length + " bytes");
        }
        assertEquals(0, new ExampleStore(folder, keys, 25).open().count(), "frames of another model");
    }

    @Test
    void theOldestGoes() throws IOException {
        for (int i = 0; i < ExampleStore.MOST + 3; i++) {
            store().add(i, frame("abcdefghijklmnopqrstuvwxyz"));
        }
        Examples open = store().open();
        assertEquals(ExampleStore.MOST, open.count());
        assertEquals(3, open.label(0));
    }

    @Test
    void deletingLeavesNothingAndNoKey() throws IOException {
        store().add(3, frame("abcdefghijklmnopqrstuvwxyz"));
        byte[] copied = Files.readAllBytes(files().get(0));
        store().deleteAll();
        assertEquals(0, files().size());
        Files.write(folder.resolve("000000001.example"), copied);
        assertEquals(0, store().open().count(), "a copy of the file cannot be read any more");
    }
}
