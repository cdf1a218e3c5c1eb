package flmobile.engine;

import static org.bytedeco.tensorflowlite.global.tensorflowlite.TfLiteTensorByteSize;
import static org.bytedeco.tensorflowlite.global.tensorflowlite.TfLiteTensorCopyFromBuffer;
import static org.bytedeco.tensorflowlite.global.tensorflowlite.TfLiteTensorCopyToBuffer;

import flmobile.client.TrainEngine;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.bytedeco.tensorflowlite.BuiltinOpResolver;
import org.bytedeco.tensorflowlite.FlatBufferModel;
import org.bytedeco.tensorflowlite.Interpreter;
import org.bytedeco.tensorflowlite.InterpreterBuilder;
import org.bytedeco.tensorflowlite.SignatureRunner;
import org.bytedeco.tensorflowlite.TfLiteTensor;

/**
 * TFLite 2.20 of JavaCPP through its C++ API: the C API of these builds has no XNNPACK, which makes a step six times as
 * long. The same class in an app and in tests; tensors are bound by name.
 */
public final class TfLite implements TrainEngine {
    private final BytePointer bytes;
    private final FlatBufferModel model;
    private final BuiltinOpResolver operators;
    private final InterpreterBuilder builder;
    private final Interpreter interpreter;
    private final Map<String, SignatureRunner> runners = new HashMap<>();

    /**
     * @throws IllegalArgumentException these bytes are no program
     */
    public TfLite(byte[] program, int threads) {
        bytes = new BytePointer(program); // the model reads from it as long as it lives
        model = FlatBufferModel.VerifyAndBuildFromBuffer(bytes, program.length);
        if (model == null || model.isNull()) {
            bytes.close();
            throw new IllegalArgumentException("these " + program.length + " bytes are no .tflite");
        }
        operators = new BuiltinOpResolver();
        builder = new InterpreterBuilder(model, operators);
        builder.SetNumThreads(threads);
        interpreter = new Interpreter((Pointer) null);
        check(builder.apply(interpreter), "build");
    }

    /** Loads programs on so many threads. */
    public static Loader loader(int threads) {
        return new Loader() {
            @Override
            public TrainEngine load(byte[] program) {
                return new TfLite(program, threads);
            }

            @Override
            public String runtime() {
                return "tflite-2.20";
            }
        };
    }

    @Override
    public Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs) {
        SignatureRunner runner = runner(signature);
        if (runner.input_size() != inputs.size()) {
            throw new IllegalArgumentException(signature + " takes " + runner.input_size() + " inputs");
        }
        for (Map.Entry<String, ByteBuffer> input : inputs.entrySet()) {
            TfLiteTensor tensor = runner.input_tensor(input.getKey());
            if (tensor == null || TfLiteTensorByteSize(tensor) != input.getValue().remaining()) {
                throw new IllegalArgumentException(signature + " takes no such '" + input.getKey() + "'");
            }
            byte[] value = new byte[input.getValue().remaining()];
            input.getValue().duplicate().get(value);
            try (BytePointer from = new BytePointer(value)) {
                check(TfLiteTensorCopyFromBuffer(tensor, from, value.length), input.getKey());
            }
        }
        check(runner.Invoke(), signature);
        Map<String, ByteBuffer> out = new HashMap<>();
        PointerPointer<?> names = runner.output_names();
        for (int i = 0; i < runner.output_size(); i++) {
            String name = names.getString(i);
            TfLiteTensor tensor = runner.output_tensor(name);
            byte[] value = new byte[(int) TfLiteTensorByteSize(tensor)];
            try (BytePointer to = new BytePointer(value.length)) {
                check(TfLiteTensorCopyToBuffer(tensor, to, value.length), name);
                to.get(value);
            }
            out.put(name, ByteBuffer.wrap(value).order(ByteOrder.nativeOrder()));
        }
        return out;
    }

    private SignatureRunner runner(String signature) {
        SignatureRunner runner = runners.get(signature);
        if (runner == null) {
            runner = interpreter.GetSignatureRunner(signature);
            if (runner == null) {
                throw new IllegalArgumentException("the program has no signature '" + signature + "'");
            }
            check(runner.AllocateTensors(), signature);
            runners.put(signature, runner);
        }
        return runner;
    }

    private static void check(int status, String what) {
        if (status != 0) {
            throw new IllegalStateException(what + ": TFLite status " + status);
        }
    }

    @Override
    public void close() {
        interpreter.close();
        builder.close();
        operators.close();
        model.close();
        bytes.close();
    }
}
