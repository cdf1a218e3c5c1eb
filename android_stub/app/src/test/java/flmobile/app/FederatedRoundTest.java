package flmobile.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.content.Context;
import android.content.Intent;
import android.net.ConnectivityManager;
import android.os.BatteryManager;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import flmobile.codecs.Codec;
import flmobile.codecs.Codecs;
import flmobile.core.Hashes;
import flmobile.core.Json;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.core.TensorSpec;
import flmobile.core.Writer;
import flmobile.wire.Packet;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;

/** One federated round through the app's own job: enrolled, trained on corrected answers by TFLite, sent, receipted. */
@RunWith(RobolectricTestRunner.class)
public final class FederatedRoundTest {
    private static final int EXAMPLES = 25;
    private final Map<String, byte[]> answers = new HashMap<>();
    private final List<byte[]> uploads = new ArrayList<>();
    private final List<String> asked = new ArrayList<>();
    private Context app;
    private Settings settings;
    private CameraModel model;
    private HttpServer server;
    private Spec spec;

    @Before
    public void start() throws IOException {
        app = RuntimeEnvironment.getApplication();
        Keystore.install();
        settings = new Settings(app);
        model = CameraModel.read(app.getAssets());
        ready();
        serve();
        app.getSharedPreferences("federated", Context.MODE_PRIVATE).edit()
                .putString("server", "http://127.0.0.1:" + server.getAddress().getPort()).commit();
        settings.setTakesPart(true);
    }

    @SuppressWarnings("deprecation") // as Robolectric says what is metered; sticky broadcasts are the system's own
    private void ready() {
        android.net.NetworkInfo wifi = org.robolectric.shadows.ShadowNetworkInfo.newInstance(
                android.net.NetworkInfo.DetailedState.CONNECTED, ConnectivityManager.TYPE_WIFI, 0, true, true);
        shadowOf(app.getSystemService(ConnectivityManager.class)).setActiveNetworkInfo(wifi);
        shadowOf(app.getSystemService(ConnectivityManager.class)).setDefaultNetworkActive(true);
        app.sendStickyBroadcast(new Intent(Intent.ACTION_BATTERY_CHANGED)
                .putExtra(BatteryManager.EXTRA_LEVEL, 90)
                .putExtra(BatteryManager.EXTRA_SCALE, 100)
                .putExtra(BatteryManager.EXTRA_PLUGGED, 2)
                .putExtra(BatteryManager.EXTRA_TEMPERATURE, 250));
    }

    @After
    public void stop() {
        server.stop(0);
    }

    private static Path shared(String name) {
        return Paths.get(System.getProperty("fl.repository"), "tests", "android_stub", name);
    }

    private static Map<String, Object> json(String text) {
        return new LinkedHashMap<>(Json.object(text.replace('\'', '"').getBytes(StandardCharsets.UTF_8)));
    }

    private Map<String, Object> blob(byte[] data) {
        String digest = Hashes.hex(Hashes.sha256(data));
        answers.put("/v1/blobs/" + digest, data);
        return json("{'sha256': '" + digest + "', 'bytes': " + data.length + "}");
    }

    private void say(String path, Map<String, Object> value) {
        answers.put(path, Json.write(value).getBytes(StandardCharsets.UTF_8));
    }

    private static Map<String, Object> map(Object... pairs) {
        Map<String, Object> out = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            out.put((String) pairs[i], pairs[i + 1]);
        }
        return out;
    }

    /** Lays out what a coordinator would: terms of the program's own model, its first weights, and one assignment. */
    private void serve() throws IOException {
        byte[] program = Files.readAllBytes(shared("training/train.tflite"));
        byte[] contract = Files.readAllBytes(shared("training/contract.json"));
        List<TensorSpec> tensors = new ArrayList<>();
        List<Object> told = new ArrayList<>();
        for (Object each : Json.list(Json.object(contract).get("weights"))) {
            Map<String, Object> weight = Json.object(each);
            List<?> lengths = Json.list(weight.get("shape"));
            int[] shape = new int[lengths.size()];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = ((Long) lengths.get(i)).intValue();
            }
            tensors.add(new TensorSpec(Json.text(weight, "path"), shape, true));
            List<Object> row = new ArrayList<>();
            row.add(weight.get("path"));
            row.add(lengths);
            row.add(true);
            told.add(row);
        }
        spec = new Spec(tensors);
        float[] first = new Philox(99).uniform(spec.size());
        Map<String, Object> rounds = Json.object(Files.readAllBytes(shared("rounds.json")));
        Map<String, Object> terms = new LinkedHashMap<>(Json.object(Json.object(rounds, "whole models"), "terms"));
        terms.putAll(map("spec", told, "initial", blob(new Writer().floats(first).toBytes()), "upload", "q8", "download", "none"));
        Packet.Header head = new Packet.Header(Packet.MODEL, 0, 0, 0, Float.NaN);
        byte[] sent = Packet.pack(head, first, spec, Codecs.parse("none"), new Philox(0));
        Map<String, Object> assignment = json("{'round': 0, 'upload': 'q8', 'clip_norm': 0.0, 'max_examples': 100, 'device': 7,"
                + " 'token': 't', 'seed': '5', 'plan': {'epochs': 2, 'batch_size': 10, 'learning_rate': 0.1, 'optimizer': 'sgd',"
                + " 'momentum': 0.9, 'loss': 'sparse-categorical-crossentropy', 'from_logits': true, 'proximal_mu': 0.0,"
                + " 'clip_gradient_norm': 0.0, 'shuffle': true, 'keep_zeros': false, 'fake_quant': false, 'trained': [],"
                + " 'task': 'classification', 'label_smoothing': 0.0, 'class_weights': []}}");
        assignment.put("parts", map("model", blob(sent)));
        assignment.put("programs", map("training", blob(program), "training-contract", blob(contract)));
        say("/v1/run", map("run", "a-run", "terms", blob(Json.write(terms).getBytes(StandardCharsets.UTF_8))));
        say("/v1/devices", map("device", 7L));
        say("/v1/devices/7/check-ins", map("assignment", assignment));
        server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", this::answer);
        server.start();
    }

    private void answer(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        byte[] part = new byte[4096];
        for (int count = exchange.getRequestBody().read(part); count >= 0; count = exchange.getRequestBody().read(part)) {
            body.write(part, 0, count);
        }
        synchronized (asked) {
            asked.add(exchange.getRequestMethod() + " " + path.replaceAll("[0-9a-f]{64}", "…"));
        }
        byte[] answer = answers.get(path);
        int status = answer == null ? 404 : 200;
        if (exchange.getRequestMethod().equals("PUT") && path.equals("/v1/rounds/0/devices/7/attempts/0")) {
            synchronized (asked) {
                uploads.add(body.toByteArray());
            }
            say("/v1/devices/7/check-ins", json("{'retry': {'after_seconds': 60, 'before_seconds': 61, 'reason': 'full'}}"));
            answer = Json.write(json("{'receipt': {'accepted': true, 'reason': '', 'weight': 25, 'local_steps': 6.0}}"))
                    .getBytes(StandardCharsets.UTF_8);
            status = 201;
        }
        answer = answer == null ? new byte[0] : answer;
        exchange.sendResponseHeaders(status, answer.length == 0 ? -1 : answer.length);
        exchange.getResponseBody().write(answer);
        exchange.close();
    }

    /** Runs the job as the system would, until it has ordered the next visit. */
    private long visit() throws Exception {
        JobScheduler jobs = app.getSystemService(JobScheduler.class);
        jobs.cancelAll();
        TrainJob job = Robolectric.setupService(TrainJob.class);
        JobParameters parameters = org.robolectric.shadow.api.Shadow.newInstanceOf(JobParameters.class);
        assertTrue(job.onStartJob(parameters));
        long end = System.currentTimeMillis() + 60_000;
        while (jobs.getPendingJob(TrainJob.ID) == null && System.currentTimeMillis() < end) {
            Thread.sleep(10);
        }
        assertNotNull("the job ended without ordering another", jobs.getPendingJob(TrainJob.ID));
        return jobs.getPendingJob(TrainJob.ID).getMinLatencyMillis();
    }

    @Test
    public void theJobTrainsOnCorrectedAnswersAndSendsOnlyAPacket() throws Exception {
        ExampleStore store = Phone.examples(app, model);
        for (int i = 0; i < EXAMPLES; i++) {
            store.add(i % 10, model.golden.get(i % model.golden.size()));
        }
        visit();
        assertEquals("accepted", settings.outcome());
        assertEquals(1, uploads.size());
        Codec codec = Codecs.parse("q8");
        Packet packet = Packet.unpack(uploads.get(0), spec, codec);
        assertEquals(EXAMPLES, packet.header.examples);
        assertTrue("loss " + packet.header.loss, packet.header.loss > 0 && packet.header.loss < 20);
        double square = 0;
        for (float value : packet.values) {
            square += value * value;
        }
        assertTrue("the update's norm is " + Math.sqrt(square), square > 1e-4 && square < 1e4);
        List<PacketLog.Packet> left = Phone.packets(app).read();
        assertEquals(1, left.size());
        assertEquals("0 accepted " + uploads.get(0).length, left.get(0).round + " " + left.get(0).outcome + " " + left.get(0).bytes);
        assertEquals("examples stay on the phone", EXAMPLES, store.count());
        long next = visit();
        assertEquals("full", settings.outcome());
        assertTrue("in the server's window: " + next, next >= 60_000 && next <= 61_000);
        assertEquals("nothing more left", 1, uploads.size());
        for (String request : asked) {
            assertTrue(request, request.matches("(GET|POST|PUT) /v1/(run|blobs/…|devices|devices/7/check-ins|rounds/0/.*)"));
        }
    }
}
