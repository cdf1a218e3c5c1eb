package flmobile.app;

import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Context;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Visits the coordinator while the phone charges, lies idle and has unmetered network; then orders the next visit. */
public final class TrainJob extends JobService {
    static final int ID = 1;
    /** One client at a time, whatever the system starts. */
    private static final ExecutorService WORKER = Executors.newSingleThreadExecutor(job -> new Thread(job, "fl-train"));

    private volatile Conditions running;

    /** Orders the next visit; it replaces one that is ordered already. */
    static boolean order(Context app, double afterSeconds) {
        JobInfo.Builder job = new JobInfo.Builder(ID, new ComponentName(app, TrainJob.class))
                .setRequiresCharging(true)
                .setRequiresDeviceIdle(true)
                .setRequiresBatteryNotLow(true)
                .setRequiresStorageNotLow(true)
                .setRequiredNetworkType(JobInfo.NETWORK_TYPE_UNMETERED)
                .setMinimumLatency((long) (1000 * afterSeconds))
                .setPersisted(true);
        return app.getSystemService(JobScheduler.class).schedule(job.build()) == JobScheduler.RESULT_SUCCESS;
    }

    static void cancel(Context app) {
        app.getSystemService(JobScheduler.class).cancel(ID);
    }

    @Override
    public boolean onStartJob(JobParameters parameters) {
        Context app = getApplicationContext();
        Settings settings = new Settings(app);
        if (!settings.takesPart()) {
            return false;
        }
        Conditions conditions = new Conditions(app, settings, Phone.packets(app));
        running = conditions;
        WORKER.execute(() -> {
            Participation.Outcome outcome = new Participation(app, settings, conditions).visit();
            if (running != conditions) {
                return; // stopped meanwhile: the system starts it again
            }
            running = null;
            jobFinished(parameters, false);
            if (settings.takesPart()) {
                order(app, outcome.waitSeconds);
            }
        });
        return true;
    }

    /** Is called when a condition no longer holds; what was trained so far in this round is lost, nothing else. */
    @Override
    public boolean onStopJob(JobParameters parameters) {
        Conditions conditions = running;
        running = null;
        if (conditions != null) {
            conditions.stop();
        }
        return true;
    }
}
