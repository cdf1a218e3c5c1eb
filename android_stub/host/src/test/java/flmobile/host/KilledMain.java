package flmobile.host;

import flmobile.client.Client;
import flmobile.client.Environment;
import flmobile.client.Patience;
import flmobile.client.TrainEngine;
import flmobile.client.Visit;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * URL FOLDER LIBRARY: a fleet whose first three clients die once at each step of {@link Environment.Step}, and come back
 * as new ones over what is on disk; {@code tests/android_stub/test_deployed.py} runs it.
 */
public final class KilledMain {
    private KilledMain() {}

    /** The end of a process, as far as a client can tell. */
    private static final class Killed extends Error {
        private static final long serialVersionUID = 1;
    }

    private static final class Phone {
        private final String url;
        private final Path data;
        private final TrainEngine.Loader loader;
        private final boolean mortal;
        private final Set<Environment.Step> died = new HashSet<>();
        private Client client;

        Phone(String url, Path data, TrainEngine.Loader loader, boolean mortal) {
            this.url = url;
            this.data = data;
            this.loader = loader;
            this.mortal = mortal;
        }

        /** Returns null if it was killed. */
        Visit live() throws Exception {
            try {
                if (client == null) {
                    Environment environment = new Environment() {
                        @Override
                        public void at(Step step) {
                            if (mortal && died.add(step)) {
                                throw new Killed();
                            }
                        }
                    };
                    Path state = Paths.get(data + ".kept");
                    client = new Client(
                            url, state, NpzExamples.read(data), loader, environment, new Patience(), null);
                    client.enrol();
                }
                return client.visit();
            } catch (Killed killed) {
                client = null;
                return null;
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        TrainEngine.Loader loader = LiteRt.loader(arguments[2]);
        List<Path> files;
        try (Stream<Path> all = Files.list(Paths.get(arguments[1]))) {
            files = all.filter(path -> path.toString().endsWith(".npz")).sorted().collect(Collectors.toList());
        }
        Deque<Phone> phones = new ArrayDeque<>();
        List<Phone> mortals = new ArrayList<>();
        int accepted = 0;
        for (Path file : files) {
            Phone phone = new Phone(arguments[0], file, loader, mortals.size() < 3);
            if (phone.mortal) {
                mortals.add(phone);
            }
            while (phone.client == null) { // enrolled one after another, so that the n-th file is device n
                Visit first = phone.live();
                accepted += first != null && first.accepted ? 1 : 0;
            }
            phones.add(phone);
        }
        while (!phones.isEmpty()) {
            Phone phone = phones.poll();
            Visit visit = phone.live();
            accepted += visit != null && visit.accepted ? 1 : 0;
            if (visit == null || !visit.finished) {
                phones.add(phone);
            }
        }
        int deaths = 0;
        for (Phone phone : mortals) {
            deaths += phone.died.size();
        }
        System.out.println("accepted: " + accepted + " deaths: " + deaths);
    }
}
