package flmobile.app;

import flmobile.client.Examples;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.GeneralSecurityException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import javax.crypto.Cipher;
import javax.crypto.SecretKey;
import javax.crypto.spec.GCMParameterSpec;

/**
 * Corrected answers: a file each, encrypted with AES-GCM under a key that the phone's keystore does not give away.
 *
 * <pre>12 bytes nonce | AES-GCM of (label: uint16, big-endian | frame) with the frame's length as associated data | tag</pre>
 */
final class ExampleStore {
    /** The oldest goes when one more comes. */
    static final int MOST = 500;

    private static final int NONCE_BYTES = 12;
    private static final int TAG_BITS = 128;
    private final Path folder;
    private final Keys keys;
    private final int frameBytes;

    /** Where the key is. */
    interface Keys {
        SecretKey get() throws GeneralSecurityException, IOException;

        void delete() throws GeneralSecurityException, IOException;
    }

    ExampleStore(Path folder, Keys keys, int frameBytes) {
        this.folder = folder;
        this.keys = keys;
        this.frameBytes = frameBytes;
    }

    /** Keeps an example. */
    synchronized void add(int label, byte[] frame) throws IOException {
        if (frame.length != frameBytes) {
            throw new IOException("expected a frame of " + frameBytes + " bytes, got " + frame.length);
        }
        Files.createDirectories(folder);
        List<Path> files = files();
        byte[] plain = ByteBuffer.allocate(2 + frame.length).putShort((short) label).put(frame).array();
        byte[] sealed;
        byte[] nonce;
        try {
            Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
            cipher.init(Cipher.ENCRYPT_MODE, keys.get()); // the keystore draws the nonce itself, and takes none
            cipher.updateAAD(about());
            sealed = cipher.doFinal(plain);
            nonce = cipher.getIV();
        } catch (GeneralSecurityException broken) {
            throw ofKeystore(broken);
        }
        int last = files.isEmpty() ? 0 : number(files.get(files.size() - 1));
        Path path = folder.resolve(String.format(java.util.Locale.ROOT, "%09d.example", last + 1));
        Path draft = folder.resolve("draft");
        Files.write(draft, ByteBuffer.allocate(nonce.length + sealed.length).put(nonce).put(sealed).array());
        Files.move(draft, path, StandardCopyOption.ATOMIC_MOVE);
        for (int i = 0; i < files.size() + 1 - MOST; i++) {
            Files.deleteIfExists(files.get(i));
        }
    }

    synchronized int count() throws IOException {
        return files().size();
    }

    /** Decrypts them into memory; what cannot be read any more, or belongs to another model, is passed over. */
    synchronized Examples open() throws IOException {
        List<byte[]> all = new ArrayList<>();
        SecretKey key;
        try {
            key = keys.get();
        } catch (GeneralSecurityException broken) {
            throw ofKeystore(broken);
        }
        for (Path file : files()) {
            byte[] data = Files.readAllBytes(file);
            try {
                Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
                cipher.init(Cipher.DECRYPT_MODE, key, new GCMParameterSpec(TAG_BITS, Arrays.copyOf(data, NONCE_BYTES)));
                cipher.updateAAD(about());
                all.add(cipher.doFinal(data, NONCE_BYTES, data.length - NONCE_BYTES));
            } catch (GeneralSecurityException | IllegalArgumentException unreadable) {
                continue;
            }
        }
        return new Opened(all);
    }

    /** Deletes examples and key. */
    synchronized void deleteAll() throws IOException {
        for (Path file : files()) {
            Files.deleteIfExists(file);
        }
        try {
            keys.delete();
        } catch (GeneralSecurityException broken) {
            throw ofKeystore(broken);
        }
    }

    private static IOException ofKeystore(GeneralSecurityException broken) {
        return new IOException("the phone's keystore: " + broken.getMessage(), broken);
    }

    private byte[] about() {
        return ByteBuffer.allocate(4).putInt(frameBytes).array();
    }

    private static int number(Path file) {
        return Integer.parseInt(file.getFileName().toString().substring(0, 9));
    }

    private List<Path> files() throws IOException {
        List<Path> out = new ArrayList<>();
        if (Files.isDirectory(folder)) {
            try (DirectoryStream<Path> found = Files.newDirectoryStream(folder, "?????????.example")) {
                for (Path file : found) {
                    out.add(file);
                }
            }
        }
        Collections.sort(out);
        return out;
    }

    /** What a client trains on, for as long as it does. */
    private static final class Opened implements Examples {
        private final List<byte[]> all;

        Opened(List<byte[]> all) {
            this.all = all;
        }

        @Override
        public int count() {
            return all.size();
        }

        @Override
        public int label(int example) {
            return ByteBuffer.wrap(all.get(example)).getShort() & 0xFFFF;
        }

        @Override
        public void put(int example, String dtype, ByteBuffer out) {
            byte[] frame = all.get(example);
            if (out.remaining() < (frame.length - 2) * (dtype.equals("uint8") ? 1 : 4)) {
                throw new IllegalArgumentException("the program takes smaller frames than this camera's model");
            }
            for (int i = 2; i < frame.length; i++) {
                if (dtype.equals("uint8")) {
                    out.put(frame[i]);
                } else {
                    out.putFloat(frame[i] & 0xFF);
                }
            }
        }
    }
}
