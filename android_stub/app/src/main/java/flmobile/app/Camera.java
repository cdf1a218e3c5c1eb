package flmobile.app;

import android.content.Context;
import android.graphics.ImageFormat;
import android.graphics.SurfaceTexture;
import android.hardware.camera2.CameraAccessException;
import android.hardware.camera2.CameraCaptureSession;
import android.hardware.camera2.CameraCharacteristics;
import android.hardware.camera2.CameraDevice;
import android.hardware.camera2.CameraManager;
import android.hardware.camera2.CaptureRequest;
import android.media.Image;
import android.media.ImageReader;
import android.os.Handler;
import android.view.Surface;
import java.util.Arrays;

/** The rear camera, or the first there is: its picture on a surface, and frames for the model. All on one handler's thread. */
final class Camera {
    private static final int WIDTH = 640;
    private static final int HEIGHT = 480;
    private final CameraModel model;
    private final Handler handler;
    private final Listener listener;
    private CameraDevice device;
    private CameraCaptureSession session;
    private ImageReader reader;
    private Surface preview;
    private boolean closed;

    /** Is told of frames, on the handler's thread. */
    interface Listener {
        void onFrame(byte[] frame);

        void onCameraFailed(String why);
    }

    Camera(CameraModel model, Handler handler, Listener listener) {
        this.model = model;
        this.handler = handler;
        this.listener = listener;
    }

    /**
     * Opens it; what goes wrong later is told to the listener.
     *
     * @param turned how far the display is turned from its natural position, degrees
     * @return whether there is a camera
     * @throws SecurityException the user did not allow it
     */
    boolean open(Context context, SurfaceTexture texture, int turned) throws CameraAccessException {
        CameraManager manager = context.getSystemService(CameraManager.class);
        String chosen = null;
        for (String id : manager.getCameraIdList()) {
            boolean back = faces(manager.getCameraCharacteristics(id), CameraCharacteristics.LENS_FACING_BACK);
            chosen = chosen == null || back ? id : chosen;
            if (back) {
                break;
            }
        }
        if (chosen == null) {
            return false;
        }
        CameraCharacteristics about = manager.getCameraCharacteristics(chosen);
        Integer mounted = about.get(CameraCharacteristics.SENSOR_ORIENTATION);
        int sign = faces(about, CameraCharacteristics.LENS_FACING_FRONT) ? 1 : -1;
        int turn = ((mounted == null ? 0 : mounted) + sign * turned + 360) % 360;
        texture.setDefaultBufferSize(WIDTH, HEIGHT);
        preview = new Surface(texture);
        reader = ImageReader.newInstance(WIDTH, HEIGHT, ImageFormat.YUV_420_888, 2);
        reader.setOnImageAvailableListener(from -> take(from, turn), handler);
        manager.openCamera(chosen, new Opening(), handler);
        return true;
    }

    private static boolean faces(CameraCharacteristics about, int where) {
        Integer facing = about.get(CameraCharacteristics.LENS_FACING);
        return facing != null && facing == where;
    }

    private void take(ImageReader from, int turn) {
        try (Image image = from.acquireLatestImage()) { // the newest; what came while the model ran is dropped
            if (image == null || closed) {
                return;
            }
            Image.Plane[] given = image.getPlanes();
            Frames.Plane[] planes = new Frames.Plane[given.length];
            for (int i = 0; i < planes.length; i++) {
                planes[i] = new Frames.Plane(given[i].getBuffer(), given[i].getRowStride(), given[i].getPixelStride());
            }
            listener.onFrame(Frames.upright(planes, image.getWidth(), image.getHeight(), turn, model));
        } catch (IllegalStateException gone) { // closed between two lines
            return;
        }
    }

    void close() {
        closed = true;
        if (session != null) {
            session.close();
        }
        if (device != null) {
            device.close();
        }
        if (reader != null) {
            reader.close();
        }
        if (preview != null) {
            preview.release();
        }
    }

    private void failed(String why) {
        if (!closed) {
            close();
            listener.onCameraFailed(why);
        }
    }

    private final class Opening extends CameraDevice.StateCallback {
        @Override
        @SuppressWarnings("deprecation") // the other way to open a session came with API 28
        public void onOpened(CameraDevice opened) {
            device = opened;
            if (closed) {
                opened.close();
                return;
            }
            try {
                opened.createCaptureSession(Arrays.asList(preview, reader.getSurface()), new Started(), handler);
            } catch (CameraAccessException | IllegalStateException lost) {
                failed(lost.getMessage());
            }
        }

        @Override
        public void onDisconnected(CameraDevice lost) {
            lost.close();
            failed("disconnected");
        }

        @Override
        public void onError(CameraDevice broken, int error) {
            broken.close();
            failed("error " + error);
        }
    }

    private final class Started extends CameraCaptureSession.StateCallback {
        @Override
        public void onConfigured(CameraCaptureSession made) {
            session = made;
            if (closed) {
                made.close();
                return;
            }
            try {
                CaptureRequest.Builder request = device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW);
                request.addTarget(preview);
                request.addTarget(reader.getSurface());
                made.setRepeatingRequest(request.build(), null, handler);
            } catch (CameraAccessException | IllegalStateException lost) {
                failed(lost.getMessage());
            }
        }

        @Override
        public void onConfigureFailed(CameraCaptureSession broken) {
            failed("configuration");
        }
    }
}
