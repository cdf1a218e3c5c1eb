package flmobile.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import flmobile.Shared;
import flmobile.codecs.Codec;
import flmobile.codecs.Codecs;
import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.core.WireException;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Packets that Python wrote are read to the bit, and written again to the byte. */
class PacketVectorsTest {
    private final Map<String, Object> shared = Shared.json("tests/android_stub/vectors.json");

    private Spec spec(Object name) {
        return Shared.spec(Json.object(Json.object(shared, "specs"), (String) name).get("tensors"));
    }

    @Test
    void bothLanguagesDrawTheSameUpdates() {
        for (Map.Entry<String, Object> entry : Json.object(shared, "specs").entrySet()) {
            Spec spec = Shared.spec(Json.object(entry.getValue()).get("tensors"));
            for (Map.Entry<String, Object> pattern : Json.object(Json.object(entry.getValue()), "patterns").entrySet()) {
                float[] values = Shared.drawn(spec, pattern.getKey(), 3);
                assertEquals(pattern.getValue(), Shared.digest(values), entry.getKey() + " " + pattern.getKey());
            }
        }
    }

    @Test
    void everyPacketIsReadToTheBitAndWrittenToTheByte() {
        List<String> wrong = new ArrayList<>();
        int count = 0;
        for (Object each : Json.list(shared.get("packets"))) {
            List<?> row = Json.list(each);
            Spec spec = spec(row.get(1));
            Codec codec = Codecs.parse((String) row.get(0));
            long key = (Long) row.get(3);
            float[] values = Shared.drawn(spec, (String) row.get(2), key);
            Packet.Header header = new Packet.Header(Packet.UPDATE, key, key, 60, 0.5f);
            byte[] packet = Packet.pack(header, values, spec, codec, new Philox(key));
            String what = row.subList(0, 4) + ": ";
            if (row.size() > 6) {
                Packet own = Packet.unpack(packet, spec, codec);
                assertEquals(values.length, own.values.length, what);
                packet = Base64.getDecoder().decode((String) row.get(6));
            }
            if (!Shared.digest(packet).equals(row.get(4))) {
                wrong.add(what + "other bytes");
            } else if (!Shared.digest(Packet.unpack(packet, spec, codec).values).equals(row.get(5))) {
                wrong.add(what + "other values");
            }
            count++;
        }
        assertEquals(new ArrayList<String>(), wrong, wrong.size() + " of " + count);
    }

    @Test
    void codecsThatNobodyHasAreRefusedByName() {
        for (String name : new String[] {"eden:5", "eden", "eden:0", "powersgd:0", "q9", "ecsq:wide", "deflate+q8", ""}) {
            WireException refused = assertThrows(WireException.class, () -> Codecs.parse(name), name);
            assertEquals("codec", refused.reason());
        }
    }
}
