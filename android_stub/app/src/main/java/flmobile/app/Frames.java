package flmobile.app;

import java.nio.ByteBuffer;

/** Pictures of a camera → the frame of bytes that a model takes. */
final class Frames {
    private Frames() {}

    /** One plane of {@code ImageFormat.YUV_420_888}. */
    static final class Plane {
        final ByteBuffer bytes;
        final int rowStride;
        final int pixelStride;

        Plane(ByteBuffer bytes, int rowStride, int pixelStride) {
            this.bytes = bytes;
            this.rowStride = rowStride;
            this.pixelStride = pixelStride;
        }

        private int at(int x, int y) {
            return bytes.get(y * rowStride + x * pixelStride) & 0xFF;
        }
    }

    /**
     * Turns a picture upright, takes the largest centred part of the model's aspect ratio, and averages it down.
     *
     * @param planes luma, blue and red difference, as a camera gives them (full range, ITU-R 601)
     * @param turn how far the picture is turned clockwise to stand upright: 0, 90, 180 or 270
     * @return uint8[height, width, channels]; grey is the luma itself, as {@code PIL.Image.convert("L")} makes it
     */
    static byte[] upright(Plane[] planes, int width, int height, int turn, CameraModel model) {
        boolean lying = turn % 180 != 0;
        int wide = lying ? height : width;
        int high = lying ? width : height;
        double scale = Math.min((double) wide / model.width, (double) high / model.height);
        double left = (wide - model.width * scale) / 2;
        double top = (high - model.height * scale) / 2;
        byte[] out = new byte[model.frameBytes()];
        int[] mean = new int[3];
        int at = 0;
        for (int row = 0; row < model.height; row++) {
            int y0 = (int) (top + row * scale);
            int y1 = Math.min(high, Math.max(y0 + 1, (int) (top + (row + 1) * scale)));
            for (int column = 0; column < model.width; column++) {
                int x0 = (int) (left + column * scale);
                int x1 = Math.min(wide, Math.max(x0 + 1, (int) (left + (column + 1) * scale)));
                for (int c = 0; c < model.channels; c++) {
                    mean[c] = mean(planes[c], c == 0 ? 1 : 2, new int[] {x0, y0, x1, y1}, width, height, turn);
                }
                if (model.channels == 1) {
                    out[at++] = (byte) mean[0];
                } else {
                    double u = mean[1] - 128;
                    double v = mean[2] - 128;
                    out[at++] = clamped(mean[0] + 1.402 * v);
                    out[at++] = clamped(mean[0] - 0.344136 * u - 0.714136 * v);
                    out[at++] = clamped(mean[0] + 1.772 * u);
                }
            }
        }
        return out;
    }

    /** Returns the mean of a plane over a box of the upright picture. */
    private static int mean(Plane plane, int shrunk, int[] box, int width, int height, int turn) {
        int sum = 0;
        for (int y = box[1]; y < box[3]; y++) {
            for (int x = box[0]; x < box[2]; x++) {
                int sx = turn == 0 ? x : turn == 90 ? y : turn == 180 ? width - 1 - x : width - 1 - y;
                int sy = turn == 0 ? y : turn == 90 ? height - 1 - x : turn == 180 ? height - 1 - y : x;
                sum += plane.at(sx / shrunk, sy / shrunk);
            }
        }
        int count = (box[2] - box[0]) * (box[3] - box[1]);
        return (sum + count / 2) / count;
    }

    private static byte clamped(double value) {
        return (byte) Math.max(0, Math.min(255, Math.round(value)));
    }

    /** Returns a frame as ARGB pixels, to show it. */
    static int[] argb(byte[] frame, int channels) {
        int[] out = new int[frame.length / channels];
        for (int i = 0; i < out.length; i++) {
            int r = frame[i * channels] & 0xFF;
            int g = frame[i * channels + (channels == 3 ? 1 : 0)] & 0xFF;
            int b = frame[i * channels + (channels == 3 ? 2 : 0)] & 0xFF;
            out[i] = 0xFF000000 | r << 16 | g << 8 | b;
        }
        return out;
    }
}
