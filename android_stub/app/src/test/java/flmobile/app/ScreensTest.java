package flmobile.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.app.AlertDialog;
import android.app.job.JobInfo;
import android.app.job.JobScheduler;
import android.content.Context;
import android.content.Intent;
import android.content.res.Configuration;
import android.os.Looper;
import android.view.View;
import android.view.ViewGroup;
import android.widget.EditText;
import android.widget.Spinner;
import android.widget.Switch;
import android.widget.TextView;
import java.io.IOException;
import java.util.Locale;
import java.util.function.BooleanSupplier;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowAlertDialog;

/** The two screens as a user meets them, on the APK's own resources and the real runtime. */
@RunWith(RobolectricTestRunner.class)
public final class ScreensTest {
    private static final long PATIENCE_MS = 30_000;
    private Context app;

    @Before
    public void start() {
        app = RuntimeEnvironment.getApplication();
        Keystore.install();
    }

    private static void until(BooleanSupplier done) {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (!done.getAsBoolean() && System.currentTimeMillis() < end) {
            shadowOf(Looper.getMainLooper()).idle();
            try {
                Thread.sleep(10);
            } catch (InterruptedException interrupted) {
                throw new AssertionError(interrupted);
            }
        }
        assertTrue(done.getAsBoolean());
    }

    private static String text(Activity screen, int id) {
        return screen.<TextView>findViewById(id).getText().toString();
    }

    private CameraActivity camera() {
        CameraActivity screen = Robolectric.buildActivity(CameraActivity.class).setup().get();
        until(() -> text(screen, R.id.answers).contains("%") && text(screen, R.id.check).matches(".*16.*16.*"));
        return screen;
    }

    private TrainingActivity training() {
        return Robolectric.buildActivity(TrainingActivity.class).setup().get();
    }

    private static void answer(int button) {
        ((AlertDialog) ShadowAlertDialog.getLatestDialog()).getButton(button).performClick();
        shadowOf(Looper.getMainLooper()).idle();
    }

    @Test
    public void withoutACameraTheSampleIsClassifiedAsInPython() {
        CameraActivity screen = camera();
        assertEquals(app.getString(R.string.no_permission), text(screen, R.id.notice));
        assertEquals("16 of 16 golden frames answered as in Python", text(screen, R.id.check));
        String[] lines = text(screen, R.id.answers).split("\n");
        assertEquals(3, lines.length);
        assertTrue(lines[0], lines[0].startsWith("3, ")); // what Python answered to the first golden frame
        assertTrue(text(screen, R.id.latency), text(screen, R.id.latency).matches("[0-9.]+ ms on this phone, median of \\d+"));
        Spinner recipes = screen.findViewById(R.id.recipe);
        assertEquals(2, recipes.getCount());
        screen.<TextView>findViewById(R.id.check).setText("");
        recipes.setSelection(1);
        until(() -> text(screen, R.id.check).startsWith("16 of 16"));
    }

    @Test
    public void aCorrectedAnswerIsKeptAndCanBeDeleted() throws IOException {
        CameraActivity screen = camera();
        screen.findViewById(R.id.correct).performClick();
        shadowOf((AlertDialog) ShadowAlertDialog.getLatestDialog()).clickOnItem(8);
        assertEquals("1 example kept on this phone, encrypted; it is never sent", text(screen, R.id.notice));
        CameraModel model = CameraModel.read(app.getAssets());
        assertEquals(8, Phone.examples(app, model).open().label(0));
        screen.findViewById(R.id.training).performClick();
        Intent next = shadowOf(screen).getNextStartedActivity();
        assertEquals(TrainingActivity.class.getName(), next.getComponent().getClassName());
        Phone.packets(app).sending(0, 7, 2100);
        Phone.packets(app).settled(7, "accepted");
        TrainingActivity page = training();
        assertTrue(text(page, R.id.examples).startsWith("1 example kept"));
        assertTrue(text(page, R.id.total), text(page, R.id.total).startsWith("1 packets, 2.1"));
        TextView line = (TextView) page.<ViewGroup>findViewById(R.id.packets).getChildAt(0);
        assertTrue(line.getText().toString(), line.getText().toString().startsWith("Round 7: 2.1"));
        page.findViewById(R.id.delete_all).performClick();
        answer(AlertDialog.BUTTON_NEGATIVE);
        assertEquals(1, Phone.examples(app, model).count());
        page.findViewById(R.id.delete_all).performClick();
        answer(AlertDialog.BUTTON_POSITIVE);
        assertEquals(0, Phone.examples(app, model).count());
        assertEquals(0, Phone.packets(app).read().size());
        assertEquals(0, Keystore.KEYS.size());
        assertEquals("Nothing yet", text(page, R.id.total));
    }

    @Test
    @SuppressWarnings("deprecation") // getNetworkType: the newer way to ask came with API 28
    public void takingPartOrdersAJobThatWaitsForTheNight() {
        TrainingActivity page = training();
        JobScheduler jobs = app.getSystemService(JobScheduler.class);
        Switch on = page.findViewById(R.id.take_part);
        EditText server = page.findViewById(R.id.server);
        for (String wrong : new String[] {"", "fl.example.org", "http://fl.example.org", "http://127.0.0.1:8470", "https://a b"}) {
            server.setText(wrong);
            on.performClick();
            assertFalse(wrong, on.isChecked());
            assertEquals("Expected https://HOST", server.getError());
            assertNull(jobs.getPendingJob(TrainJob.ID));
        }
        server.setText("https://fl.example.org");
        on.performClick();
        JobInfo job = jobs.getPendingJob(TrainJob.ID);
        assertTrue(job.isRequireCharging() && job.isRequireDeviceIdle() && job.isPersisted());
        assertTrue(job.isRequireBatteryNotLow() && job.isRequireStorageNotLow());
        assertEquals(JobInfo.NETWORK_TYPE_UNMETERED, job.getNetworkType());
        on.performClick();
        assertFalse(new Settings(app).takesPart());
        assertNull(jobs.getPendingJob(TrainJob.ID));
        assertEquals("https://fl.example.org", new Settings(app).server());
    }

    @Test
    @Config(qualifiers = "zh-rCN-night")
    public void itSpeaksChineseAndIsDarkAtNight() {
        assertEquals("Expected the night's theme", Configuration.UI_MODE_NIGHT_YES,
                app.getResources().getConfiguration().uiMode & Configuration.UI_MODE_NIGHT_MASK);
        CameraActivity screen = camera();
        assertEquals("16 个基准画面中有 16 个与 Python 的结果一致", text(screen, R.id.check));
        assertEquals("尚无", text(training(), R.id.total));
        android.content.res.TypedArray colours = screen.obtainStyledAttributes(new int[] {android.R.attr.isLightTheme});
        assertFalse(colours.getBoolean(0, true));
        colours.recycle();
    }

    @Test
    public void everyStringIsTranslated() throws ReflectiveOperationException {
        Configuration chinese = new Configuration(app.getResources().getConfiguration());
        chinese.setLocale(Locale.SIMPLIFIED_CHINESE);
        Context translated = app.createConfigurationContext(chinese);
        for (java.lang.reflect.Field each : R.string.class.getFields()) {
            int id = each.getInt(null);
            assertNotEquals(each.getName(), app.getString(id), translated.getString(id));
            assertEquals(each.getName(), holes(app.getString(id)), holes(translated.getString(id)));
        }
    }

    /** Returns the holes of a format, in order of their numbers. */
    private static String holes(String format) {
        char[] seen = format.replaceAll("%(\\d)\\$[sd]", "\u0000$1").replaceAll("[^\u0000\\d]|(?<!\u0000)\\d", "").toCharArray();
        java.util.Arrays.sort(seen);
        return new String(seen);
    }

    @Test
    public void whatCanBeTouchedIsNamedAndLargeEnough() {
        for (Activity screen : new Activity[] {camera(), training()}) {
            int seen = namedAndLarge(screen.findViewById(android.R.id.content));
            assertTrue(screen + " has " + seen, seen >= 3);
        }
    }

    private static int namedAndLarge(View view) {
        int seen = 0;
        boolean picture = view instanceof android.widget.ImageView || view instanceof android.view.TextureView;
        if (view.isClickable() && !(view instanceof ViewGroup) || view instanceof Spinner || picture) {
            CharSequence name = view instanceof TextView ? ((TextView) view).getText() : view.getContentDescription();
            boolean named = name != null && name.length() > 0 || view.getLabelFor() != 0 || labelled(view);
            assertTrue(view + " has no name", named);
            float density = view.getResources().getDisplayMetrics().density;
            int height = Math.max(view.getMinimumHeight(), view.getLayoutParams().height);
            boolean large = picture || height >= 48 * density || view instanceof TextView && ((TextView) view).getMinHeight() >= 48 * density;
            assertTrue(view + " is too small to touch", large);
            seen++;
        }
        if (view instanceof ViewGroup && !(view instanceof Spinner)) {
            for (int i = 0; i < ((ViewGroup) view).getChildCount(); i++) {
                seen += namedAndLarge(((ViewGroup) view).getChildAt(i));
            }
        }
        return seen;
    }

    private static boolean labelled(View view) {
        ViewGroup around = (ViewGroup) view.getParent();
        for (int i = 0; i < around.getChildCount(); i++) {
            if (around.getChildAt(i).getLabelFor() == view.getId()) {
                return true;
            }
        }
        return false;
    }
}
