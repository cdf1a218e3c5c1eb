package flmobile.app;

import android.content.res.AssetManager;
import flmobile.core.Json;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/** What is in the APK's assets: {@code bundle.json}, as {@code export/pages/camera.py} describes a proven bundle. */
final class CameraModel {
    final List<String> labels = new ArrayList<>();
    final List<Recipe> recipes = new ArrayList<>();
    final String inputName;
    final int height;
    final int width;
    /** 1 for grey, 3 for RGB. */
    final int channels;
    /** Frames of uint8[height, width, channels] whose answers every recipe's {@code golden} holds. */
    final List<byte[]> golden = new ArrayList<>();

    /** A {@code .tflite} file, and what is known of it. */
    static final class Recipe {
        final String name;
        final String file;
        final String signature;
        final String output;
        final String outputType;
        final double scale;
        final long zeroPoint;
        /** The first class of each golden frame, as LiteRT in Python answered. */
        final int[] golden;

        Recipe(Map<String, Object> told, int classes) {
            name = Json.text(told, "recipe");
            file = Json.text(told, "url").replaceFirst("^/", "");
            signature = Json.text(told, "signature");
            Map<String, Object> end = Json.object(told, "output");
            output = Json.text(end, "name");
            outputType = Json.text(end, "dtype");
            scale = Json.number(end, "scale");
            zeroPoint = Json.whole(end, "zeroPoint", -128, 255);
            List<?> answers = Json.list(Json.field(told, "golden"));
            golden = new int[answers.size()];
            for (int i = 0; i < golden.length; i++) {
                golden[i] = (int) Json.whole(answers.get(i), 0, classes - 1);
            }
        }

        @Override
        public String toString() {
            return name;
        }
    }

    private CameraModel(Map<String, Object> told) {
        for (Object label : Json.list(Json.field(told, "labels"))) {
            labels.add((String) label);
        }
        Map<String, Object> input = Json.object(told, "input");
        inputName = Json.text(input, "name");
        height = (int) Json.whole(input, "height", 1, 4096);
        width = (int) Json.whole(input, "width", 1, 4096);
        channels = (int) Json.whole(input, "channels", 1, 3);
        for (Object recipe : Json.list(Json.field(told, "variants"))) {
            recipes.add(new Recipe(Json.object(recipe), labels.size()));
        }
        byte[] frames = Base64.getDecoder().decode(Json.text(Json.object(told, "golden"), "frames"));
        for (int at = 0; at + frameBytes() <= frames.length; at += frameBytes()) {
            golden.add(Arrays.copyOfRange(frames, at, at + frameBytes()));
        }
    }

    /**
     * @throws flmobile.core.WireException it is no such description
     */
    static CameraModel of(Map<String, Object> told) {
        return new CameraModel(told);
    }

    int frameBytes() {
        return height * width * channels;
    }

    /** Returns the bundle of this APK. */
    static CameraModel read(AssetManager assets) throws IOException {
        return of(Json.object(bytes(assets, "bundle.json")));
    }

    static byte[] bytes(AssetManager assets, String name) throws IOException {
        try (InputStream in = assets.open(name)) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            byte[] part = new byte[1 << 16];
            for (int count = in.read(part); count >= 0; count = in.read(part)) {
                out.write(part, 0, count);
            }
            return out.toByteArray();
        }
    }
}
