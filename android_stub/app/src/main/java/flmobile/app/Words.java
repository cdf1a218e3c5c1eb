package flmobile.app;

import android.content.Context;
import java.util.HashMap;
import java.util.Map;

/** Outcomes in the user's language. */
final class Words {
    private static final Map<String, Integer> KNOWN = new HashMap<>();

    static {
        KNOWN.put("accepted", R.string.accepted);
        KNOWN.put("sent", R.string.sent);
        KNOWN.put("finished", R.string.reason_finished);
        KNOWN.put("unreachable", R.string.reason_unreachable);
        KNOWN.put("full", R.string.reason_full);
        KNOWN.put("not-charging", R.string.reason_charging);
        KNOWN.put("battery-low", R.string.reason_battery);
        KNOWN.put("too-warm", R.string.reason_warm);
        KNOWN.put("metered", R.string.reason_metered);
        KNOWN.put("no-room", R.string.reason_room);
        KNOWN.put("off", R.string.reason_off);
        KNOWN.put("no-examples", R.string.reason_examples);
        KNOWN.put("stopped", R.string.reason_stopped);
        KNOWN.put("storage", R.string.reason_storage);
    }

    private Words() {}

    /** Returns what a short stable word means to a person. */
    static String of(Context context, String word) {
        Integer known = KNOWN.get(word);
        return known != null ? context.getString(known) : context.getString(R.string.reason_other, word);
    }
}
