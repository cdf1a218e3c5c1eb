package flmobile.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import flmobile.core.WireException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What a client keeps comes back, and a damaged file says so. */
class KeptTest {
    @TempDir
    Path folder;

    @Test
    void comesBack() throws IOException {
        assertEquals(-1, Kept.load(folder).device);
        Kept kept = new Kept();
        kept.run = "run-é";
        kept.device = 17;
        kept.held = 3;
        kept.point = new int[] {1, -2, Integer.MIN_VALUE};
        kept.residual = new float[] {0.5f, -0f};
        kept.assignment = "{\"round\": 3}";
        kept.packet = new byte[] {1, 2, 3};
        kept.save(folder);
        Kept back = Kept.load(folder);
        assertEquals("run-é 17 3", back.run + " " + back.device + " " + back.held);
        assertArrayEquals(kept.point, back.point);
        assertArrayEquals(kept.residual, back.residual);
        assertArrayEquals(kept.packet, back.packet);
        assertEquals(3L, back.assignmentTold().get("round"));
        assertNull(back.variate);
        back.done();
        back.save(folder);
        assertNull(Kept.load(folder).packet);
    }

    @Test
    void damageIsToldByName() throws IOException {
        new Kept().save(folder);
        Path path = folder.resolve("client.kept");
        byte[] data = Files.readAllBytes(path);
        for (int i = 0; i < data.length; i++) {
            byte[] damaged = data.clone();
            damaged[i] ^= 1;
            Files.write(path, damaged);
            assertEquals("storage", assertThrows(WireException.class, () -> Kept.load(folder)).reason());
        }
        Files.write(path, new byte[0]);
        assertEquals("storage", assertThrows(WireException.class, () -> Kept.load(folder)).reason());
    }

    @Test
    void aFullDiskLeavesWhatWasThere() throws IOException {
        Path full = java.nio.file.Paths.get("/dev/full");
        org.junit.jupiter.api.Assumptions.assumeTrue(Files.exists(full), "needs Linux: /dev/full is a disk without room");
        Kept kept = new Kept();
        kept.device = 17;
        kept.save(folder);
        kept.device = 18;
        Files.createSymbolicLink(folder.resolve("client.kept.new"), full);
        assertThrows(IOException.class, () -> kept.save(folder));
        assertEquals(17, Kept.load(folder).device);
        Files.delete(folder.resolve("client.kept.new"));
        kept.save(folder);
        assertEquals(18, Kept.load(folder).device);
    }
}
