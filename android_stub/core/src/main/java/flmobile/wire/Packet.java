package flmobile.wire;

import flmobile.codecs.Codec;
import flmobile.core.Philox;
import flmobile.core.Reader;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.WireException;
import flmobile.core.Writer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.zip.CRC32;

/** Packet v1, the only thing that passes between phone and server; see {@code fl_mobile/wire/packet.py} for its layout. */
public final class Packet {
    public static final int UPDATE = 0;
    public static final int MODEL = 1;
    public static final int MODEL_DELTA = 2;
    public static final int MODEL_SUMS = 3;
    private static final int HEAD_BYTES = 40;
    private static final long MAGIC = 0x314D4C46L; // FLM1
    private static final long MOST_EXAMPLES = 0xFFFFFFFFL;

    /** What a packet says about itself. */
    public static final class Header {
        public final int kind;
        public final long round;
        public final long baseRound;
        public final long examples;
        public final float loss;

        public Header(int kind, long round, long baseRound, long examples, float loss) {
            this.kind = kind;
            this.round = round;
            this.baseRound = baseRound;
            this.examples = examples;
            this.loss = loss;
        }
    }

    public final Header header;
    /** Values of the whole spec: those that travelled exactly, and those that the payload decodes to. */
    public final float[] values;
    /** The payload, where it was not decoded. */
    final byte[] payload;

    private Packet(Header header, float[] values, byte[] payload) {
        this.header = header;
        this.values = values;
        this.payload = payload;
    }

    /** Returns the kind that a packet says it is of, −1 if it is too short to say; nothing else was looked at. */
    public static int kindOf(byte[] packet) {
        return packet.length > 5 ? packet[5] : -1;
    }

    /** Returns the tensors that a codec encodes; the others travel as float32. */
    static Spec coded(Spec spec, int exactUpTo) {
        return spec.where((TensorSpec tensor) -> tensor.trainable && tensor.size > exactUpTo);
    }

    private static Spec exact(Spec spec, int exactUpTo) {
        return spec.where((TensorSpec tensor) -> !(tensor.trainable && tensor.size > exactUpTo));
    }

    private static long crc(byte[] data, int length) {
        CRC32 crc = new CRC32();
        crc.update(data, 0, length);
        return crc.getValue();
    }

    private static long codecId(String wireName) {
        byte[] name = wireName.getBytes(StandardCharsets.UTF_8);
        return crc(name, name.length);
    }

    /**
     * Returns the packet that carries values of a spec.
     *
     * @throws IllegalArgumentException a value is NaN or infinite
     */
    public static byte[] pack(Header header, float[] values, Spec spec, Codec codec, Philox rng) {
        for (float value : values) {
            if (Float.isNaN(value) || Float.isInfinite(value)) {
                throw new IllegalArgumentException("NaN or Inf in what should leave this client");
            }
        }
        Spec coded = coded(spec, codec.exactUpTo());
        Codec own = codec.forRound(header.round).forExamples(header.examples);
        byte[] payload = own.encode(spec.select(values, coded), coded, rng);
        Writer out = new Writer();
        out.u32(MAGIC).u8(1).u8(header.kind).u8(0).u8(0);
        out.u64(spec.fingerprint()).u32(codecId(codec.wireName())).u32(header.round).u32(header.baseRound);
        out.u32(Math.min(header.examples, MOST_EXAMPLES)).f32(header.loss).u32(payload.length);
        out.floats(spec.select(values, exact(spec, codec.exactUpTo()))).bytes(payload);
        byte[] bare = out.toBytes();
        return out.u32(crc(bare, bare.length)).toBytes();
    }

    /**
     * Returns header and values of a packet for this spec and codec.
     *
     * @throws WireException for any other bytes, and nothing else
     */
    public static Packet unpack(byte[] packet, Spec spec, Codec codec) {
        Packet opened = open(packet, spec, codec.wireName(), codec.exactUpTo());
        Spec coded = coded(spec, codec.exactUpTo());
        float[] decoded = codec.forRound(opened.header.round).decode(new Reader(opened.payload), coded);
        spec.insert(opened.values, coded, decoded);
        for (float value : opened.values) {
            if (Float.isNaN(value) || Float.isInfinite(value)) {
                throw new WireException("value", "a tensor decodes to NaN or Inf");
            }
        }
        return opened;
    }

    /** Returns header, exact values and payload of a packet that is whole and of this model and codec. */
    static Packet open(byte[] packet, Spec spec, String wireName, int exactUpTo) {
        int overhead = HEAD_BYTES + 4;
        if (packet.length < overhead) {
            throw new WireException("truncated", "a packet has at least " + overhead + " bytes, got " + packet.length);
        }
        Reader reader = new Reader(packet, 0, packet.length - 4);
        long magic = reader.u32();
        int version = reader.u8();
        int kind = reader.u8();
        int flags = reader.u8() | reader.u8() << 8;
        long model = reader.u64();
        long codec = reader.u32();
        long round = reader.u32();
        long base = reader.u32();
        long examples = reader.u32();
        float loss = Float.intBitsToFloat((int) reader.u32());
        long payload = reader.u32();
        if (magic != MAGIC) {
            throw new WireException("magic", "not an fl-mobile packet");
        }
        if (version != 1 || flags != 0 || kind > MODEL_SUMS) {
            throw new WireException("version", "expected version 1, flags 0, kind ≤ 3");
        }
        long crc = new Reader(packet, packet.length - 4, packet.length).u32();
        if (crc(packet, packet.length - 4) != crc) {
            throw new WireException("checksum", "CRC-32 does not match: the packet was damaged on its way");
        }
        if (model != spec.fingerprint()) {
            throw new WireException("fingerprint", "made for another model");
        }
        if (codec != codecId(wireName)) {
            throw new WireException("codec", "encoded with another codec than '" + wireName + "'");
        }
        Spec exact = exact(spec, exactUpTo);
        float[] values = new float[spec.size()];
        spec.insert(values, exact, reader.floats(exact.size()));
        Reader rest = reader.slice(payload);
        reader.end();
        byte[] bytes = Arrays.copyOfRange(packet, rest.at(), rest.at() + rest.left());
        return new Packet(new Header(kind, round, base, examples, loss), values, bytes);
    }
}
