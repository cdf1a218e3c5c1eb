package flmobile.js;

import flmobile.codecs.Codecs;
import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import flmobile.wire.Packet;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.teavm.jso.JSExport;

/**
 * Packets in JavaScript: core's classes, compiled by TeaVM. A spec is JSON: {@code [[path, [lengths], trains], …]}; values are a
 * {@code Float32Array}, packets an {@code Int8Array}.
 */
public final class Wire {
    private Wire() {}

    private static Spec spec(String tensors) {
        List<TensorSpec> out = new ArrayList<>();
        for (Object row : Json.list(Json.parse(tensors.getBytes(StandardCharsets.UTF_8)))) {
            List<?> parts = Json.list(row);
            List<?> lengths = Json.list(parts.get(1));
            int[] shape = new int[lengths.size()];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = (int) Json.whole(lengths.get(i), 0, Integer.MAX_VALUE);
            }
            out.add(new TensorSpec((String) parts.get(0), shape, Json.flag(parts.get(2))));
        }
        return new Spec(out);
    }

    /** Returns what a packet of this spec and codec carries. */
    @JSExport
    public static float[] unpack(byte[] packet, String tensors, String codec) {
        return Packet.unpack(packet, spec(tensors), Codecs.parse(codec)).values;
    }

    /** Returns why a packet cannot be read, empty if it can; anything but a {@code WireException} goes through. */
    @JSExport
    public static String whyNot(byte[] packet, String tensors, String codec) {
        try {
            Packet.unpack(packet, spec(tensors), Codecs.parse(codec));
            return "";
        } catch (WireException refused) {
            return refused.reason();
        }
    }

    /** Returns the packet of an update in a round; {@code key} is what rounding draws by. */
    @JSExport
    public static byte[] pack(float[] values, String tensors, String codec, int round, int examples, float loss, double key) {
        Packet.Header header = new Packet.Header(Packet.UPDATE, round, round, examples, loss);
        return Packet.pack(header, values, spec(tensors), Codecs.parse(codec), new Philox((long) key));
    }

    /** Reads a download as {@link Download#read} says. */
    @JSExport
    public static Download download(
            byte[] terms, byte[] first, byte[] model, byte[] prediction, byte[] beside, int version, int held, int[] point) {
        return Download.read(terms, first, model, prediction, beside, version, held, point);
    }

    /** Returns why a download cannot be read, empty if it can; anything but a {@code WireException} goes through. */
    @JSExport
    public static String whyNoDownload(
            byte[] terms, byte[] first, byte[] model, byte[] prediction, byte[] beside, int version, int held, int[] point) {
        try {
            Download.read(terms, first, model, prediction, beside, version, held, point);
            return "";
        } catch (WireException refused) {
            return refused.reason();
        }
    }

    /** Returns so many draws from [0, 1) of a key. */
    @JSExport
    public static float[] uniform(double key, int count) {
        return new Philox((long) key).uniform(count);
    }
}
