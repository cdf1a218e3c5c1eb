package flmobile.app;

import android.app.Activity;
import android.app.AlertDialog;
import android.os.Bundle;
import android.text.format.DateUtils;
import android.text.format.Formatter;
import android.util.Log;
import android.widget.EditText;
import android.widget.LinearLayout;
import android.widget.Switch;
import android.widget.TextView;
import java.io.IOException;
import java.util.List;

/** Take part or not, what is kept, and what left this phone: packet by packet. */
public final class TrainingActivity extends Activity {
    private Settings settings;
    private CameraModel model;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.training);
        settings = new Settings(this);
        try {
            model = CameraModel.read(getAssets());
        } catch (IOException broken) {
            throw new IllegalStateException("this APK's assets cannot be read", broken);
        }
        EditText server = findViewById(R.id.server);
        server.setText(settings.server());
        server.setOnFocusChangeListener((view, focused) -> {
            if (!focused) {
                takeServer();
            }
        });
        this.<Switch>findViewById(R.id.take_part).setOnClickListener(view -> takePart(((Switch) view).isChecked()));
        findViewById(R.id.delete_all).setOnClickListener(view -> askToDelete());
    }

    @Override
    protected void onResume() {
        super.onResume();
        show();
    }

    @Override
    protected void onPause() {
        super.onPause();
        takeServer();
    }

    /** Returns whether there is an address to go to; says what is expected otherwise. */
    private boolean takeServer() {
        EditText server = findViewById(R.id.server);
        String text = server.getText().toString();
        boolean good = !text.trim().isEmpty() && settings.setServer(text);
        server.setError(good || text.trim().isEmpty() ? null : expected());
        return good;
    }

    /** Returns what an address must look like. */
    private String expected() {
        return getString(settings.isDebug() ? R.string.server_wrong_debug : R.string.server_wrong);
    }

    private void takePart(boolean on) {
        boolean may = on && takeServer();
        settings.setTakesPart(may);
        if (may) {
            TrainJob.order(this, 0);
        } else {
            TrainJob.cancel(this);
            if (on) {
                this.<EditText>findViewById(R.id.server).setError(expected());
            }
        }
        show();
    }

    private void show() {
        this.<Switch>findViewById(R.id.take_part).setChecked(settings.takesPart());
        TextView status = findViewById(R.id.status);
        if (!settings.outcome().isEmpty()) {
            String word = Words.of(this, settings.outcome());
            status.setText(getString(R.string.status_at, time(settings.outcomeAtMs()), word));
        } else {
            status.setText(R.string.never);
        }
        try {
            int count = Phone.examples(this, model).count();
            this.<TextView>findViewById(R.id.examples).setText(getResources().getQuantityString(R.plurals.kept, count, count));
            showPackets(Phone.packets(this).read());
        } catch (IOException broken) {
            Log.w("fl-mobile", broken);
            status.setText(getString(R.string.reason_other, broken.getMessage()));
        }
    }

    private void showPackets(List<PacketLog.Packet> packets) {
        LinearLayout list = findViewById(R.id.packets);
        list.removeAllViews();
        long bytes = 0;
        for (PacketLog.Packet packet : packets) {
            bytes += packet.bytes;
            TextView line = new TextView(this);
            String size = Formatter.formatShortFileSize(this, packet.bytes);
            String word = Words.of(this, packet.outcome);
            line.setText(getString(R.string.packet, packet.round, size, word, time(packet.timeMs)));
            list.addView(line, 0); // the newest on top
        }
        TextView total = findViewById(R.id.total);
        String sum = getString(R.string.total, packets.size(), Formatter.formatShortFileSize(this, bytes));
        total.setText(packets.isEmpty() ? getString(R.string.nothing_left) : sum);
    }

    private String time(long ms) {
        return DateUtils.formatDateTime(this, ms, DateUtils.FORMAT_SHOW_DATE | DateUtils.FORMAT_SHOW_TIME);
    }

    private void askToDelete() {
        new AlertDialog.Builder(this)
                .setTitle(R.string.delete_title)
                .setMessage(R.string.delete_text)
                .setNegativeButton(R.string.delete_no, null)
                .setPositiveButton(R.string.delete_yes, (dialog, which) -> deleteAll())
                .show();
    }

    private void deleteAll() {
        try {
            Phone.deleteAll(this, model);
        } catch (IOException broken) {
            Log.w("fl-mobile", broken);
        }
        this.<EditText>findViewById(R.id.server).setText("");
        show();
    }
}
