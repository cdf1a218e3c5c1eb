package flmobile.client;

import flmobile.core.Json;
import java.util.Map;

/** What the server says of a packet; without one, nothing has arrived. */
public final class Receipt {
    /** Whether the packet counts. */
    public final boolean accepted;
    /** Why it does not, a short stable word; empty if it does. */
    public final String reason;
    final double localSteps;

    private Receipt(Map<String, Object> told) {
        accepted = Json.flag(Json.field(told, "accepted"));
        reason = Json.text(told, "reason");
        localSteps = Json.number(told, "local_steps");
    }

    static Receipt read(Map<String, Object> told) {
        return new Receipt(told);
    }
}
