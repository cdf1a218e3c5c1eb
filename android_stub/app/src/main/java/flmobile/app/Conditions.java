package flmobile.app;

import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.net.ConnectivityManager;
import android.os.BatteryManager;
import android.os.Build;
import android.os.PowerManager;
import android.os.SystemClock;
import flmobile.client.Environment;
import java.io.IOException;
import java.util.concurrent.CancellationException;
import org.codehaus.mojo.animal_sniffer.IgnoreJRERequirement;

/** Whether this phone may train now; asked before a visit and again at every step, looked at once a second. */
final class Conditions implements Environment {
    private static final int LEAST_PERCENT = 20;
    private static final int MOST_TENTHS_OF_DEGREE = 420;
    private static final long LEAST_ROOM_BYTES = 64L << 20;
    private static final long FRESH_MS = 1000;
    private final Context app;
    private final Settings settings;
    private final PacketLog packets;
    private volatile boolean stopped;
    private long lookedMs = -FRESH_MS;
    private String seen = "";

    Conditions(Context app, Settings settings, PacketLog packets) {
        this.app = app;
        this.settings = settings;
        this.packets = packets;
    }

    /** Ends what is under way at its next step. */
    void stop() {
        stopped = true;
    }

    @Override
    public String whyNot() {
        long now = SystemClock.elapsedRealtime();
        if (now - lookedMs >= FRESH_MS) {
            seen = look();
            lookedMs = now;
        }
        return seen;
    }

    private String look() {
        Intent battery = app.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
        if (!settings.takesPart()) {
            return "off";
        }
        if (battery != null) {
            int percent = 100 * battery.getIntExtra(BatteryManager.EXTRA_LEVEL, 100)
                    / Math.max(1, battery.getIntExtra(BatteryManager.EXTRA_SCALE, 100));
            if (battery.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) == 0) {
                return "not-charging";
            }
            if (percent < LEAST_PERCENT) {
                return "battery-low";
            }
            if (battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0) >= MOST_TENTHS_OF_DEGREE) {
                return "too-warm";
            }
        }
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q && throttles(app)) {
            return "too-warm";
        }
        if (app.getNoBackupFilesDir().getUsableSpace() < LEAST_ROOM_BYTES) {
            return "no-room";
        }
        return app.getSystemService(ConnectivityManager.class).isActiveNetworkMetered() ? "metered" : "";
    }

    @IgnoreJRERequirement // API 29
    private static boolean throttles(Context app) {
        return app.getSystemService(PowerManager.class).getCurrentThermalStatus() >= PowerManager.THERMAL_STATUS_MODERATE;
    }

    @Override
    public void at(Step step) {
        if (stopped || Thread.currentThread().isInterrupted()) {
            throw new CancellationException("stopped");
        }
    }

    @Override
    public void sending(long round, byte[] packet) throws IOException {
        packets.sending(System.currentTimeMillis(), round, packet.length);
    }
}
