package flmobile.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;
import flmobile.Shared;
import flmobile.codecs.Codec;
import flmobile.codecs.Codecs;
import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.zip.CRC32;
import org.junit.jupiter.api.Test;

/** Bytes from people who mean harm: values of the spec or a {@link WireException}, in bounded memory. */
class HostilePacketsTest {
    private static final int COUNT = Integer.getInteger("fl.hostile", 20_000);
    private static final long MOST_BYTES_A_PACKET = 8 << 20;

    /** Returns a damaged copy with a correct checksum; the header's identity mostly survives. */
    private static byte[] mutated(byte[] packet, int exactBytes, Random random) {
        byte[] data = Arrays.copyOf(packet, packet.length - 4);
        int first = random.nextInt(10) > 0 ? 36 : 0;
        for (int n = 1 + random.nextInt(5); n > 0 && data.length > 40; n--) {
            int at = first + random.nextInt(data.length - first);
            switch (random.nextInt(5)) {
                case 0:
                    data[at] ^= (byte) (1 << random.nextInt(8));
                    break;
                case 1:
                    data[at] = (byte) new int[] {0, 1, 0x7F, 0x80, 0xFF}[random.nextInt(5)];
                    break;
                case 2:
                    data = Arrays.copyOf(data, at);
                    break;
                case 3:
                    for (int i = at; i < Math.min(at + 8, data.length); i++) {
                        data[i] = (byte) random.nextInt();
                    }
                    break;
                default:
                    byte[] more = new byte[1 + random.nextInt(20)];
                    random.nextBytes(more);
                    data = new Writer().bytes(data).bytes(more).toBytes();
            }
        }
        if (data.length > 40 && random.nextInt(10) < 7) { // keep the length honest, so that damage reaches the codec
            byte[] length = new Writer().u32(Math.max(0, data.length - 40 - exactBytes)).toBytes();
            System.arraycopy(length, 0, data, 36, 4);
        }
        CRC32 crc = new CRC32();
        crc.update(data);
        return new Writer().bytes(data).u32(crc.getValue()).toBytes();
    }

    @Test
    void damagedPacketsGiveOneExceptionAndBoundedMemory() {
        Map<String, Object> shared = Shared.json("tests/android_stub/vectors.json");
        Map<String, Object> specs = Json.object(shared, "specs");
        Map<String, byte[]> packets = new LinkedHashMap<>();
        for (Object each : Json.list(shared.get("packets"))) {
            List<?> row = Json.list(each);
            String spec = (String) row.get(1);
            String key = row.get(0) + "|" + spec;
            if (row.get(2).equals("rows and columns") && !packets.containsKey(key)) {
                Codec codec = Codecs.parse((String) row.get(0));
                Spec of = Shared.spec(Json.object(specs, spec).get("tensors"));
                Packet.Header header = new Packet.Header(Packet.UPDATE, 3, 3, 60, 0.5f);
                byte[] own = Packet.pack(header, Shared.drawn(of, "rows and columns", 1), of, codec, new Philox(1));
                packets.put(key, row.size() > 6 ? Base64.getDecoder().decode((String) row.get(6)) : own);
            }
        }
        Random random = new Random(2026);
        List<String> keys = new ArrayList<>(packets.keySet());
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        long me = Thread.currentThread().getId();
        int refused = 0;
        for (int n = 0; n < COUNT; n++) {
            String key = keys.get(n % keys.size());
            Codec codec = Codecs.parse(key.substring(0, key.indexOf('|')));
            Spec spec = Shared.spec(Json.object(specs, key.substring(key.indexOf('|') + 1)).get("tensors"));
            int exact = 4 * (spec.size() - Packet.coded(spec, codec.exactUpTo()).size());
            byte[] packet = mutated(packets.get(key), exact, random);
            long before = threads.getThreadAllocatedBytes(me);
            try {
                assertEquals(spec.size(), Packet.unpack(packet, spec, codec).values.length);
            } catch (WireException expected) {
                refused++;
            } catch (RuntimeException other) {
                throw new AssertionError(key + ": " + Base64.getEncoder().encodeToString(packet), other);
            }
            long used = threads.getThreadAllocatedBytes(me) - before;
            assertTrue(used < MOST_BYTES_A_PACKET, () -> key + " took " + used + " bytes");
        }
        assertTrue(refused > COUNT / 2 && refused < COUNT, "refused " + refused + " of " + COUNT);
    }
}
