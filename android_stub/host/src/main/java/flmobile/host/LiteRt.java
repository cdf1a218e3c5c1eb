package flmobile.host;

import com.sun.jna.Memory;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.NativeLongByReference;
import com.sun.jna.ptr.PointerByReference;
import flmobile.client.TrainEngine;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * LiteRT's {@code CompiledModel} through its C API, out of the Python wheel's {@code libLiteRt.so}: the reference to which
 * a phone's runtime is compared. A desktop's; its C API is not stable, so the wheel's version is pinned (2.3).
 */
final class LiteRt implements TrainEngine {
    private static final int CPU = 1;
    private static final int READ = 0;
    private static final int WRITE = 1;
    /** Bytes of the struct that describes a tensor's type, and room to spare. */
    private static final int TYPE_BYTES = 72;

    private final NativeLibrary library;
    private final Memory program;
    private final Pointer environment;
    private final Pointer model;
    private final Pointer options;
    private final Pointer compiled;
    private final Map<String, Signature> signatures = new HashMap<>();

    private static final class Port {
        String name;
        Pointer buffer;
        long bytes;
    }

    private static final class Signature {
        long index;
        Port[] inputs;
        Port[] outputs;
    }

    LiteRt(NativeLibrary library, byte[] tflite) {
        this.library = library;
        program = new Memory(tflite.length); // the model reads from it as long as it lives
        program.write(0, tflite, 0, tflite.length);
        environment = pointer("LiteRtCreateEnvironment", 0, Pointer.NULL);
        model = pointer("LiteRtCreateModelFromBuffer", environment, program, (long) tflite.length);
        options = pointer("LiteRtCreateOptions");
        call("LiteRtSetOptionsHardwareAccelerators", options, CPU);
        compiled = pointer("LiteRtCreateCompiledModel", environment, model, options);
        long count = number("LiteRtGetNumModelSignatures", model);
        for (long i = 0; i < count; i++) {
            Pointer told = pointer("LiteRtGetModelSignature", model, i);
            Signature signature = new Signature();
            signature.index = i;
            signature.inputs = ports(told, i, "Input");
            signature.outputs = ports(told, i, "Output");
            signatures.put(pointer("LiteRtGetSignatureKey", told).getString(0), signature);
        }
    }

    /** Loads programs; one engine serves all rounds that train the same one. */
    static Loader loader(String libraryPath) {
        NativeLibrary library = NativeLibrary.getInstance(libraryPath);
        return new Loader() {
            private byte[] held;
            private LiteRt engine;

            @Override
            public TrainEngine load(byte[] tflite) {
                if (!Arrays.equals(held, tflite)) {
                    if (engine != null) {
                        engine.close();
                    }
                    engine = new LiteRt(library, tflite);
                    held = tflite;
                }
                LiteRt shared = engine;
                return new TrainEngine() {
                    @Override
                    public Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs) {
                        return shared.run(signature, inputs);
                    }

                    @Override
                    public void close() {} // stays for the next round: set_weights begins anew
                };
            }

            @Override
            public String runtime() {
                return "litert-2.3-jna";
            }
        };
    }

    private Port[] ports(Pointer signature, long index, String way) {
        Port[] ports = new Port[(int) number("LiteRtGetNumSignature" + way + "s", signature)];
        for (int i = 0; i < ports.length; i++) {
            Port port = new Port();
            port.name = pointer("LiteRtGetSignature" + way + "Name", signature, (long) i).getString(0);
            Pointer tensor = pointer("LiteRtGetSignature" + way + "TensorByIndex", signature, (long) i);
            Memory type = new Memory(TYPE_BYTES);
            call("LiteRtGetRankedTensorType", tensor, type);
            Pointer needs = pointer("LiteRtGetCompiledModel" + way + "BufferRequirements", compiled, index, (long) i);
            port.buffer = pointer("LiteRtCreateManagedTensorBufferFromRequirements", environment, type, needs);
            port.bytes = number("LiteRtGetTensorBufferPackedSize", port.buffer);
            ports[i] = port;
        }
        return ports;
    }

    @Override
    public Map<String, ByteBuffer> run(String name, Map<String, ByteBuffer> inputs) {
        Signature signature = signatures.get(name);
        if (signature == null) {
            throw new IllegalArgumentException("the program has no signature '" + name + "'");
        }
        for (Port port : signature.inputs) {
            ByteBuffer value = inputs.get(port.name);
            if (value == null || value.remaining() != port.bytes) {
                throw new IllegalArgumentException(name + " needs " + port.bytes + " bytes of '" + port.name + "'");
            }
            byte[] bytes = new byte[value.remaining()];
            value.duplicate().get(bytes);
            pointer("LiteRtLockTensorBuffer", WRITE, port).write(0, bytes, 0, bytes.length);
            call("LiteRtUnlockTensorBuffer", port.buffer);
        }
        call("LiteRtRunCompiledModel", compiled, signature.index, (long) signature.inputs.length, array(signature.inputs),
                (long) signature.outputs.length, array(signature.outputs));
        Map<String, ByteBuffer> out = new HashMap<>();
        for (Port port : signature.outputs) {
            byte[] bytes = pointer("LiteRtLockTensorBuffer", READ, port).getByteArray(0, (int) port.bytes);
            call("LiteRtUnlockTensorBuffer", port.buffer);
            out.put(port.name, ByteBuffer.wrap(bytes).order(ByteOrder.nativeOrder()));
        }
        return out;
    }

    @Override
    public void close() {
        for (Signature signature : signatures.values()) {
            for (Port[] ports : new Port[][] {signature.inputs, signature.outputs}) {
                for (Port port : ports) {
                    free("LiteRtDestroyTensorBuffer", port.buffer);
                }
            }
        }
        free("LiteRtDestroyCompiledModel", compiled);
        free("LiteRtDestroyOptions", options);
        free("LiteRtDestroyModel", model);
        free("LiteRtDestroyEnvironment", environment);
        program.close();
    }

    private static Memory array(Port[] ports) {
        Memory out = new Memory(8L * Math.max(1, ports.length));
        for (int i = 0; i < ports.length; i++) {
            out.setPointer(8L * i, ports[i].buffer);
        }
        return out;
    }

    private Pointer pointer(String function, int mode, Port port) {
        PointerByReference out = new PointerByReference();
        call(function, port.buffer, out, mode);
        return out.getValue();
    }

    /** Calls a function whose last argument is where it puts a pointer. */
    private Pointer pointer(String function, Object... arguments) {
        PointerByReference out = new PointerByReference();
        call(function, with(arguments, out));
        return out.getValue();
    }

    private long number(String function, Object... arguments) {
        NativeLongByReference out = new NativeLongByReference();
        call(function, with(arguments, out));
        return out.getValue().longValue();
    }

    private static Object[] with(Object[] arguments, Object last) {
        Object[] all = Arrays.copyOf(arguments, arguments.length + 1, Object[].class);
        all[arguments.length] = last;
        return all;
    }

    private void call(String function, Object... arguments) {
        int status = library.getFunction(function).invokeInt(arguments);
        if (status != 0) {
            throw new IllegalStateException(function + ": LiteRT status " + status);
        }
    }

    private void free(String function, Pointer what) {
        library.getFunction(function).invokeVoid(new Object[] {what});
    }
}
