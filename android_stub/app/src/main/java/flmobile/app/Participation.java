package flmobile.app;

import android.content.Context;
import android.util.Log;
import flmobile.client.Client;
import flmobile.client.Environment;
import flmobile.client.Examples;
import flmobile.client.Patience;
import flmobile.client.ServerException;
import flmobile.client.Visit;
import flmobile.core.WireException;
import flmobile.engine.TfLite;
import java.io.IOException;
import java.util.concurrent.CancellationException;

/** One visit to the coordinator: whatever happens there, one word comes out, examples stay, and it comes again. */
class Participation {
    /** After what went wrong, and after a run that ended. */
    static final double RETRY_SECONDS = 15 * 60;

    static final double NEXT_RUN_SECONDS = 24 * 3600;
    private static final int THREADS = 2;
    private final Context app;
    private final Settings settings;
    private final Environment conditions;

    /** When to come again, and how it went. */
    static final class Outcome {
        final String word;
        final double waitSeconds;

        Outcome(String word, double waitSeconds) {
            this.word = word;
            this.waitSeconds = waitSeconds;
        }
    }

    Participation(Context app, Settings settings, Environment conditions) {
        this.app = app;
        this.settings = settings;
        this.conditions = conditions;
    }

    /** Visits once, and notes how it went. */
    Outcome visit() {
        Outcome outcome;
        try {
            outcome = tried();
        } catch (CancellationException stopped) {
            outcome = new Outcome("stopped", 0);
        } catch (ServerException refused) {
            outcome = new Outcome(refused.reason, RETRY_SECONDS);
        } catch (WireException damaged) {
            outcome = new Outcome(damaged.reason(), RETRY_SECONDS);
        } catch (IOException broken) {
            Log.w("fl-mobile", broken);
            outcome = new Outcome("no-room", RETRY_SECONDS);
        } catch (RuntimeException | UnsatisfiedLinkError unexpected) { // of the native runtime, or of a program it cannot run
            Log.e("fl-mobile", "visit", unexpected);
            outcome = new Outcome("program", RETRY_SECONDS);
        }
        settings.setOutcome(outcome.word, System.currentTimeMillis());
        return outcome;
    }

    Patience patience() {
        return new Patience();
    }

    private Outcome tried() throws IOException {
        String why = conditions.whyNot();
        if (why.isEmpty() && settings.server().isEmpty()) {
            why = "off";
        }
        if (!why.isEmpty()) {
            return new Outcome(why, RETRY_SECONDS);
        }
        Examples examples = Phone.examples(app, CameraModel.read(app.getAssets())).open();
        if (examples.count() == 0) {
            return new Outcome("no-examples", RETRY_SECONDS);
        }
        Client client = new Client(
                settings.server(), Phone.client(app), examples, TfLite.loader(THREADS), conditions, patience(), null);
        Visit visit = client.visit();
        if (visit.finished) {
            return new Outcome("finished", NEXT_RUN_SECONDS);
        }
        String word = visit.accepted ? "accepted" : visit.reason;
        if (visit.round >= 0) {
            Phone.packets(app).settled(visit.round, word);
        }
        return new Outcome(word, visit.waitSeconds);
    }
}
