package flmobile.app;

import android.Manifest;
import android.app.Activity;
import android.app.AlertDialog;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.graphics.Bitmap;
import android.graphics.SurfaceTexture;
import android.graphics.drawable.BitmapDrawable;
import android.hardware.camera2.CameraAccessException;
import android.os.Bundle;
import android.os.Handler;
import android.os.HandlerThread;
import android.view.Surface;
import android.view.TextureView;
import android.view.View;
import android.widget.AdapterView;
import android.widget.ArrayAdapter;
import android.widget.ImageView;
import android.widget.Spinner;
import android.widget.TextView;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** The smart camera: a picture, the three likeliest classes, how long the model took, and a choice of recipes. */
public final class CameraActivity extends Activity implements Camera.Listener {
    private static final int SHOWN = 3;
    private static final int MEDIAN_OF = 30;
    private static final int ASKED = 1;
    private final ArrayDeque<Double> latencies = new ArrayDeque<>();
    private CameraModel model;
    private HandlerThread thread;
    private Handler worker;
    /** Of the worker's thread alone. */
    private Classifier classifier;

    private Camera camera;
    private byte[] lastFrame;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.camera);
        thread = new HandlerThread("fl-camera");
        thread.start();
        worker = new Handler(thread.getLooper());
        findViewById(R.id.training).setOnClickListener(view -> startActivity(new Intent(this, TrainingActivity.class)));
        findViewById(R.id.correct).setOnClickListener(view -> correct());
        try {
            model = CameraModel.read(getAssets());
        } catch (IOException | RuntimeException broken) {
            say(getString(R.string.model_failed, broken.getMessage()));
            return;
        }
        Spinner recipes = findViewById(R.id.recipe);
        ArrayAdapter<CameraModel.Recipe> names = new ArrayAdapter<>(this, android.R.layout.simple_spinner_item, model.recipes);
        names.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
        recipes.setAdapter(names);
        recipes.setOnItemSelectedListener(new AdapterView.OnItemSelectedListener() {
            @Override
            public void onItemSelected(AdapterView<?> parent, View view, int position, long id) {
                worker.post(() -> use(model.recipes.get(position)));
            }

            @Override
            public void onNothingSelected(AdapterView<?> parent) {}
        });
        TextureView preview = findViewById(R.id.preview);
        preview.setSurfaceTextureListener(new TextureView.SurfaceTextureListener() {
            @Override
            public void onSurfaceTextureAvailable(SurfaceTexture texture, int width, int height) {
                film();
            }

            @Override
            public void onSurfaceTextureSizeChanged(SurfaceTexture texture, int width, int height) {}

            @Override
            public boolean onSurfaceTextureDestroyed(SurfaceTexture texture) {
                stopFilming();
                return true;
            }

            @Override
            public void onSurfaceTextureUpdated(SurfaceTexture texture) {}
        });
        if (checkSelfPermission(Manifest.permission.CAMERA) != PackageManager.PERMISSION_GRANTED) {
            requestPermissions(new String[] {Manifest.permission.CAMERA}, ASKED);
        }
    }

    @Override
    protected void onResume() {
        super.onResume();
        film();
    }

    @Override
    protected void onPause() {
        super.onPause();
        stopFilming();
    }

    @Override
    protected void onDestroy() {
        super.onDestroy();
        worker.post(() -> {
            if (classifier != null) {
                classifier.close();
            }
        });
        thread.quitSafely();
    }

    @Override
    public void onRequestPermissionsResult(int asked, String[] permissions, int[] granted) {
        film();
    }

    private void film() {
        TextureView preview = findViewById(R.id.preview);
        if (model == null || camera != null) {
            return;
        }
        if (checkSelfPermission(Manifest.permission.CAMERA) != PackageManager.PERMISSION_GRANTED) {
            say(getString(R.string.no_permission));
            showSample();
            return;
        }
        if (!preview.isAvailable()) {
            return; // comes again when it is
        }
        camera = new Camera(model, worker, this);
        try {
            if (camera.open(this, preview.getSurfaceTexture(), turned())) {
                say("");
                return;
            }
            say(getString(R.string.no_camera));
        } catch (CameraAccessException | SecurityException | IllegalArgumentException refused) {
            say(getString(R.string.camera_failed, refused.getMessage()));
        }
        stopFilming();
        showSample();
    }

    @SuppressWarnings("deprecation") // Context.getDisplay came with API 30
    private int turned() {
        switch (getWindowManager().getDefaultDisplay().getRotation()) {
            case Surface.ROTATION_90:
                return 90;
            case Surface.ROTATION_180:
                return 180;
            case Surface.ROTATION_270:
                return 270;
            default:
                return 0;
        }
    }

    private void stopFilming() {
        if (camera != null) {
            Camera closing = camera;
            camera = null;
            worker.post(closing::close);
        }
    }

    @Override
    public void onCameraFailed(String why) {
        runOnUiThread(() -> {
            camera = null;
            say(getString(R.string.camera_failed, why));
            showSample();
        });
    }

    private void showSample() {
        if (!model.golden.isEmpty()) {
            worker.post(() -> onFrame(model.golden.get(0)));
        }
    }

    /** Loads a recipe, and compares the golden frames with what Python answered before anything is shown of it. */
    private void use(CameraModel.Recipe recipe) {
        try {
            Classifier next = new Classifier(model, recipe, CameraModel.bytes(getAssets(), recipe.file));
            if (classifier != null) {
                classifier.close();
            }
            classifier = next;
            int same = next.goldenFramesAsInPython();
            int all = model.golden.size();
            runOnUiThread(() -> {
                latencies.clear();
                TextView check = findViewById(R.id.check);
                check.setText(getString(same == all ? R.string.checked : R.string.check_failed, same, all));
                if (lastFrame != null) {
                    byte[] again = lastFrame;
                    worker.post(() -> onFrame(again));
                }
            });
        } catch (IOException | RuntimeException | UnsatisfiedLinkError broken) {
            runOnUiThread(() -> say(getString(R.string.model_failed, broken.getMessage())));
        }
    }

    @Override
    public void onFrame(byte[] frame) {
        if (classifier == null) {
            runOnUiThread(() -> lastFrame = frame);
            return;
        }
        try {
            long began = System.nanoTime();
            float[] answer = classifier.classify(frame);
            double ms = (System.nanoTime() - began) / 1e6;
            runOnUiThread(() -> show(frame, answer, ms));
        } catch (RuntimeException broken) {
            runOnUiThread(() -> say(getString(R.string.model_failed, broken.getMessage())));
        }
    }

    private void show(byte[] frame, float[] answer, double ms) {
        lastFrame = frame;
        StringBuilder text = new StringBuilder();
        for (int label : Classifier.best(answer, SHOWN)) {
            String share = number("%.1f", 100 * answer[label]);
            text.append(text.length() == 0 ? "" : "\n").append(getString(R.string.answer, model.labels.get(label), share));
        }
        this.<TextView>findViewById(R.id.answers).setText(text);
        latencies.add(ms);
        if (latencies.size() > MEDIAN_OF) {
            latencies.remove();
        }
        List<Double> sorted = new ArrayList<>(latencies);
        Collections.sort(sorted);
        String median = number("%.2f", sorted.get(sorted.size() / 2));
        this.<TextView>findViewById(R.id.latency).setText(getString(R.string.latency, median, sorted.size()));
        int[] pixels = Frames.argb(frame, model.channels);
        Bitmap small = Bitmap.createBitmap(pixels, model.width, model.height, Bitmap.Config.ARGB_8888);
        BitmapDrawable shown = new BitmapDrawable(getResources(), small);
        shown.setFilterBitmap(false);
        this.<ImageView>findViewById(R.id.frame).setImageDrawable(shown);
        findViewById(R.id.correct).setEnabled(true);
    }

    /** Asks for the right answer of the frame that was seen when the button was touched, and keeps both. */
    private void correct() {
        byte[] frame = lastFrame;
        if (frame == null) {
            return;
        }
        new AlertDialog.Builder(this)
                .setTitle(R.string.correct_title)
                .setItems(model.labels.toArray(new String[0]), (dialog, label) -> keep(label, frame))
                .show();
    }

    private void keep(int label, byte[] frame) {
        try {
            ExampleStore examples = Phone.examples(this, model);
            examples.add(label, frame);
            say(getResources().getQuantityString(R.plurals.kept, examples.count(), examples.count()));
        } catch (IOException broken) {
            say(getString(R.string.not_kept, broken.getMessage()));
        }
    }

    private void say(String text) {
        TextView notice = findViewById(R.id.notice);
        notice.setText(text);
        notice.setVisibility(text.isEmpty() ? View.GONE : View.VISIBLE);
    }

    /** Returns a number as the phone's user writes it. */
    private String number(String format, double value) {
        return String.format(getResources().getConfiguration().getLocales().get(0), format, value);
    }
}
