package flmobile.app;

import android.content.Context;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;

/** Where this app keeps things: in storage of its own that no backup takes. */
final class Phone {
    private Phone() {}

    private static Path folder(Context app) {
        return app.getNoBackupFilesDir().toPath();
    }

    static ExampleStore examples(Context app, CameraModel model) {
        return new ExampleStore(folder(app).resolve("examples"), new KeystoreKey(), model.frameBytes());
    }

    static PacketLog packets(Context app) {
        return new PacketLog(folder(app).resolve("packets"));
    }

    /** Returns what the client keeps between rounds, its key too. */
    static Path client(Context app) {
        return folder(app).resolve("client");
    }

    /** Deletes examples, keys, what the client keeps, the list of packets and the settings. */
    static void deleteAll(Context app, CameraModel model) throws IOException {
        TrainJob.cancel(app);
        new Settings(app).delete();
        packets(app).delete();
        remove(client(app));
        examples(app, model).deleteAll();
    }

    private static void remove(Path path) throws IOException {
        if (Files.isDirectory(path)) {
            try (DirectoryStream<Path> inside = Files.newDirectoryStream(path)) {
                for (Path each : inside) {
                    remove(each);
                }
            }
        }
        Files.deleteIfExists(path);
    }
}
