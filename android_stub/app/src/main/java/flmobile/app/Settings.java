package flmobile.app;

import android.content.Context;
import android.content.SharedPreferences;
import android.content.pm.ApplicationInfo;

/** What the user chose, and what the last visit said. */
final class Settings {
    private final SharedPreferences kept;
    private final boolean debug;

    Settings(Context app) {
        kept = app.getSharedPreferences("federated", Context.MODE_PRIVATE);
        debug = (app.getApplicationInfo().flags & ApplicationInfo.FLAG_DEBUGGABLE) != 0;
    }

    String server() {
        return kept.getString("server", "");
    }

    /** Returns whether it is an address that this build may speak to; only then it is kept. */
    boolean setServer(String address) {
        String trimmed = address.trim();
        boolean good = trimmed.matches("https://[^/?#@\\s]+/?")
                || debug && trimmed.matches("http://(127\\.0\\.0\\.1|localhost|10\\.0\\.2\\.2)(:[0-9]{1,5})?/?");
        if (good) {
            kept.edit().putString("server", trimmed).apply();
        }
        return good;
    }

    boolean isDebug() {
        return debug;
    }

    /** Whether the user lets this phone take part; off at first. */
    boolean takesPart() {
        return kept.getBoolean("takes-part", false);
    }

    void setTakesPart(boolean on) {
        kept.edit().putBoolean("takes-part", on).apply();
    }

    /** Returns the last visit's outcome, a short stable word; empty before the first. */
    String outcome() {
        return kept.getString("outcome", "");
    }

    long outcomeAtMs() {
        return kept.getLong("outcome-at", 0);
    }

    void setOutcome(String outcome, long timeMs) {
        kept.edit().putString("outcome", outcome).putLong("outcome-at", timeMs).apply();
    }

    void delete() {
        kept.edit().clear().commit();
    }
}
