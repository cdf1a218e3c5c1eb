package flmobile.app;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import flmobile.core.Json;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** Pictures of known pixels, lying as cameras give them. */
class FramesTest {
    private static CameraModel model(int height, int width, int channels) {
        String told = "{\"labels\":[\"a\"],\"input\":{\"name\":\"x\",\"height\":" + height + ",\"width\":" + width + ",\"channels\":"
                + channels + "},\"variants\":[],\"golden\":{\"frames\":\"\"}}";
        return CameraModel.of(Json.object(told.getBytes(StandardCharsets.UTF_8)));
    }

    private static Frames.Plane plane(int rowStride, int pixelStride, int... values) {
        byte[] bytes = new byte[values.length];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) values[i];
        }
        return new Frames.Plane(ByteBuffer.wrap(bytes), rowStride, pixelStride);
    }

    private static int[] grey(int turn, int height, int width, Frames.Plane luma, int pictureWidth, int pictureHeight) {
        Frames.Plane[] planes = {luma, luma, luma};
        byte[] frame = Frames.upright(planes, pictureWidth, pictureHeight, turn, model(height, width, 1));
        int[] out = new int[frame.length];
        for (int i = 0; i < out.length; i++) {
            out[i] = frame[i] & 0xFF;
        }
        return out;
    }

    @Test
    void turnsClockwise() {
        Frames.Plane luma = plane(4, 1, 10, 20, 30, 99, 40, 50, 60, 99); // 3 wide, 2 high, rows padded to 4
        assertArrayEquals(new int[] {10, 20, 30, 40, 50, 60}, grey(0, 2, 3, luma, 3, 2));
        assertArrayEquals(new int[] {40, 10, 50, 20, 60, 30}, grey(90, 3, 2, luma, 3, 2));
        assertArrayEquals(new int[] {60, 50, 40, 30, 20, 10}, grey(180, 2, 3, luma, 3, 2));
        assertArrayEquals(new int[] {30, 60, 20, 50, 10, 40}, grey(270, 3, 2, luma, 3, 2));
    }

    @Test
    void takesTheMiddleAndAveragesItDown() {
        Frames.Plane luma = plane(6, 1, 9, 0, 4, 8, 12, 9, 9, 2, 6, 10, 14, 9);
        assertArrayEquals(new int[] {3, 11}, grey(0, 1, 2, luma, 6, 2));
    }

    @Test
    void coloursAreThoseOfJpegs() {
        int[][] known = {{76, 85, 255, 254, 0, 0}, {149, 43, 21, 0, 255, 1}, {29, 255, 107, 0, 0, 254}, {128, 128, 128, 128, 128, 128}};
        for (int[] each : known) {
            Frames.Plane[] planes = new Frames.Plane[3];
            planes[0] = plane(2, 1, each[0], each[0], each[0], each[0]);
            planes[1] = plane(2, 2, each[1], 0); // chroma of every second pixel, its bytes two apart
            planes[2] = plane(2, 2, each[2], 0);
            byte[] frame = Frames.upright(planes, 2, 2, 0, model(1, 1, 3));
            for (int c = 0; c < 3; c++) {
                assertEquals(each[3 + c], frame[c] & 0xFF, 1.0, Arrays.toString(each));
            }
        }
    }

    @Test
    void picturesAndModelsOfAnySizeFit() {
        int[] sizes = {1, 2, 3, 7, 64};
        for (int wide : sizes) {
            for (int high : sizes) {
                int[] values = new int[wide * high];
                Arrays.fill(values, 77);
                for (int turn = 0; turn < 360; turn += 90) {
                    int[] frame = grey(turn, 5, 8, plane(wide, 1, values), wide, high);
                    assertTrue(Arrays.stream(frame).allMatch(value -> value == 77), wide + "x" + high + " turned " + turn);
                }
            }
        }
    }
}
