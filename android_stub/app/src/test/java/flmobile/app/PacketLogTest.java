package flmobile.app;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What left the phone is listed before it does. */
class PacketLogTest {
    @TempDir
    Path folder;

    private PacketLog log() {
        return new PacketLog(folder.resolve("packets"));
    }

    @Test
    void aPacketThatIsSentAgainIsOne() throws IOException {
        log().sending(1000, 3, 400);
        log().sending(2000, 3, 400);
        log().settled(3, "accepted");
        log().sending(3000, 4, 500);
        assertEquals(2, log().read().size());
        assertEquals("accepted", log().read().get(0).outcome);
        assertEquals(1000, log().read().get(0).timeMs);
        assertEquals("sent", log().read().get(1).outcome);
    }

    @Test
    void aLineThatCannotBeReadCostsNoOther() throws IOException {
        log().sending(1000, 3, 400);
        Files.write(folder.resolve("packets"), "nonsense\n5 6".getBytes(StandardCharsets.UTF_8), StandardOpenOption.APPEND);
        log().sending(2000, 5, 400);
        log().settled(5, "two words\nand a line");
        assertEquals(2, log().read().size());
        assertEquals("two-words-and-a-line", log().read().get(1).outcome);
        log().settled(9, "of no packet");
        log().delete();
        assertEquals(0, log().read().size());
    }
}
