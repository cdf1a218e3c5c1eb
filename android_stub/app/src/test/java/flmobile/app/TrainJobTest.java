package flmobile.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.content.Context;
import android.content.Intent;
import android.net.ConnectivityManager;
import android.os.BatteryManager;
import android.os.PowerManager;
import com.sun.net.httpserver.HttpServer;
import flmobile.client.Environment;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CancellationException;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.util.ReflectionHelpers;

/** The job meets phones and coordinators that are not as they should be: one word, examples kept, a next visit ordered. */
@RunWith(RobolectricTestRunner.class)
public final class TrainJobTest {
    private Context app;
    private Settings settings;
    private CameraModel model;
    private HttpServer server;

    @Before
    public void start() throws IOException {
        app = RuntimeEnvironment.getApplication();
        Keystore.install();
        settings = new Settings(app);
        settings.setTakesPart(true);
        model = CameraModel.read(app.getAssets());
        battery(80, 2, 250);
        shadowOf(app.getSystemService(ConnectivityManager.class)).setDefaultNetworkActive(true);
        unmetered();
    }

    @After
    public void stop() {
        if (server != null) {
            server.stop(0);
        }
    }

    @SuppressWarnings("deprecation") // the network's kind is how Robolectric says what is metered
    private void unmetered() {
        android.net.NetworkInfo wifi = org.robolectric.shadows.ShadowNetworkInfo.newInstance(
                android.net.NetworkInfo.DetailedState.CONNECTED, ConnectivityManager.TYPE_WIFI, 0, true, true);
        shadowOf(app.getSystemService(ConnectivityManager.class)).setActiveNetworkInfo(wifi);
    }

    @SuppressWarnings("deprecation") // as above; sticky broadcasts are the system's own
    private void battery(int percent, int plugged, int tenthsOfDegree) {
        app.sendStickyBroadcast(new Intent(Intent.ACTION_BATTERY_CHANGED)
                .putExtra(BatteryManager.EXTRA_LEVEL, percent)
                .putExtra(BatteryManager.EXTRA_SCALE, 100)
                .putExtra(BatteryManager.EXTRA_PLUGGED, plugged)
                .putExtra(BatteryManager.EXTRA_TEMPERATURE, tenthsOfDegree));
    }

    private Conditions conditions() {
        return new Conditions(app, settings, Phone.packets(app));
    }

    private String serve(int status, String body) throws IOException {
        server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(status, bytes.length);
            exchange.getResponseBody().write(bytes);
            exchange.close();
        });
        server.start();
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    @Test
    public void thePhoneIsLookedAt() {
        assertEquals("", conditions().whyNot());
        battery(80, 0, 250);
        assertEquals("not-charging", conditions().whyNot());
        battery(19, 2, 250);
        assertEquals("battery-low", conditions().whyNot());
        battery(80, 2, 420);
        assertEquals("too-warm", conditions().whyNot());
        battery(80, 2, 419);
        shadowOf(app.getSystemService(PowerManager.class)).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE);
        assertEquals("too-warm", conditions().whyNot());
        shadowOf(app.getSystemService(PowerManager.class)).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_LIGHT);
        assertEquals("", conditions().whyNot());
        settings.setTakesPart(false);
        assertEquals("off", conditions().whyNot());
    }

    @Test
    public void aStoppedJobEndsAtItsNextStep() {
        Conditions conditions = conditions();
        conditions.at(Environment.Step.STEP);
        conditions.stop();
        org.junit.Assert.assertThrows(CancellationException.class, () -> conditions.at(Environment.Step.STEP));
    }

    private Participation.Outcome visit(String address) throws IOException {
        app.getSharedPreferences("federated", Context.MODE_PRIVATE).edit().putString("server", address).commit();
        return new Participation(app, settings, conditions()) {
            @Override
            flmobile.client.Patience patience() {
                return new flmobile.client.Patience(2, 0.01, 0.01, 0.3);
            }
        }.visit();
    }

    @Test
    public void whateverTheCoordinatorSaysOneWordComesOutAndExamplesStay() throws IOException {
        assertEquals("no-examples", visit("http://127.0.0.1:1").word);
        Phone.examples(app, model).add(4, model.golden.get(0));
        assertEquals("unreachable", visit("http://127.0.0.1:1").word);
        String[][] said = {
            {"500", "", "unknown"}, {"503", "{}", "unknown"}, {"401", "{\"reason\":\"signature\"}", "signature"},
            {"200", "<html>", "json"}, {"200", "{}", "json"}, {"200", "{\"run\":7}", "json"}
        };
        for (String[] each : said) {
            assertEquals(each[0] + " " + each[1], each[2], visit(serve(Integer.parseInt(each[0]), each[1])).word);
            server.stop(0);
        }
        assertEquals(1, Phone.examples(app, model).count());
        assertEquals("json", settings.outcome());
    }

    @Test
    public void theJobOrdersTheNextVisitAndNoneWhenSwitchedOff() throws Exception {
        TrainJob job = Robolectric.setupService(TrainJob.class);
        JobParameters parameters = org.robolectric.shadow.api.Shadow.newInstanceOf(JobParameters.class);
        JobScheduler jobs = app.getSystemService(JobScheduler.class);
        settings.setTakesPart(false);
        assertFalse(job.onStartJob(parameters));
        settings.setTakesPart(true);
        assertTrue(job.onStartJob(parameters));
        long end = System.currentTimeMillis() + 20_000;
        while (jobs.getPendingJob(TrainJob.ID) == null && System.currentTimeMillis() < end) {
            Thread.sleep(10);
        }
        assertNotNull(jobs.getPendingJob(TrainJob.ID));
        assertEquals(1000 * (long) Participation.RETRY_SECONDS, jobs.getPendingJob(TrainJob.ID).getMinLatencyMillis());
        assertFalse(shadowOf(job).getIsRescheduleNeeded());
        assertEquals("off", settings.outcome()); // no address was given
        TrainJob.cancel(app);
        assertNull(jobs.getPendingJob(TrainJob.ID));
    }
}
