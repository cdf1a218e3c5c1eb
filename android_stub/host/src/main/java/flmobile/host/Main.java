package flmobile.host;

import flmobile.client.Client;
import flmobile.client.Environment;
import flmobile.client.Patience;
import flmobile.client.ServerException;
import flmobile.client.TrainEngine;
import flmobile.client.Visit;
import flmobile.core.WireException;
import flmobile.engine.TfLite;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.TreeMap;

/** {@code java -jar fl-client.jar --server URL --data FILE}: the phone's client on a desktop, or a fleet of them. */
public final class Main {
    private static final String USAGE = "usage: java -jar fl-client.jar --server URL --data FILE|DIR [--fleet N]\n"
            + "           [--state DIR] [--visits N] [--litert libLiteRt.so]\n\n"
            + "Take part in a run that `fl-mobile serve` offers: train on local examples, send compressed updates.\n"
            + "--data    a .npz file with x and y; or a folder with one such file a client\n"
            + "--fleet   play the first N clients of the folder, by name, one after another; default 1\n"
            + "--state   what clients keep between rounds; default DIR/.fl-mobile-java\n"
            + "--visits  rounds each client takes part in; 0, the default, is until the run ends\n"
            + "--litert  train on libLiteRt.so of the Python wheel ai-edge-litert, as `simulate --engine litert` does to the\n"
            + "          bit; without it on the TFLite 2.20 of phones, which is in this file";

    private Main() {}

    /** A client, and when it is to come again. */
    private static final class Due implements Comparable<Due> {
        final String name;
        final Client client;
        long visits;
        double at;

        Due(String name, Client client) {
            this.name = name;
            this.client = client;
        }

        @Override
        public int compareTo(Due other) {
            return Double.compare(at, other.at);
        }
    }

    /** Ends with 0 when the run is finished, 1 where it cannot go on, 2 where it was asked wrongly. */
    public static void main(String[] arguments) {
        if (arguments.length == 1 && arguments[0].equals("--help")) {
            System.out.println(USAGE);
            return;
        }
        try {
            Map<String, String> options = options(arguments);
            System.out.println(run(options));
        } catch (IllegalArgumentException wrong) {
            System.err.println("fl-client: " + wrong.getMessage());
            System.exit(2);
        } catch (IOException | ServerException | WireException | IllegalStateException stopped) {
            System.err.println("fl-client: " + stopped.getMessage());
            System.exit(1);
        }
    }

    private static Map<String, String> options(String[] arguments) {
        Map<String, String> out = new HashMap<>();
        for (int i = 0; i < arguments.length; i += 2) {
            if (!arguments[i].matches("--(server|data|fleet|state|visits|litert)") || i + 1 == arguments.length) {
                throw new IllegalArgumentException("unknown option or no value: " + arguments[i] + "; see --help");
            }
            out.put(arguments[i].substring(2), arguments[i + 1]);
        }
        for (String needed : new String[] {"server", "data"}) {
            if (!out.containsKey(needed)) {
                throw new IllegalArgumentException("--" + needed + " is missing; see --help");
            }
        }
        return out;
    }

    private static int whole(Map<String, String> options, String name, int otherwise, int least) {
        String text = options.getOrDefault(name, Integer.toString(otherwise));
        if (!text.matches("[0-9]{1,6}") || Integer.parseInt(text) < least) {
            throw new IllegalArgumentException("--" + name + " must be a whole number from " + least + ", got " + text);
        }
        return Integer.parseInt(text);
    }

    private static String run(Map<String, String> options) throws IOException {
        Path data = Paths.get(options.get("data"));
        int fleet = whole(options, "fleet", 1, 1);
        int visits = whole(options, "visits", 0, 0);
        Path beside = Files.isDirectory(data) ? data : data.toAbsolutePath().getParent();
        Path state = options.containsKey("state") ? Paths.get(options.get("state")) : beside.resolve(".fl-mobile-java");
        TrainEngine.Loader loader = loader(options.get("litert"));
        PriorityQueue<Due> queue = new PriorityQueue<>();
        for (Path file : files(data, fleet)) { // one after another, so that the n-th file is device n of a new run
            String name = file.getFileName().toString().replaceFirst("\\.npz$", "");
            NpzExamples examples = NpzExamples.read(file);
            Client client = new Client(
                    options.get("server"), state.resolve(name), examples, loader, new Environment() {}, new Patience(), null);
            client.enrol();
            queue.add(new Due(name, client));
        }
        Map<String, Integer> outcomes = new TreeMap<>();
        long began = System.nanoTime();
        while (!queue.isEmpty()) {
            Due due = queue.poll();
            double now = (System.nanoTime() - began) / 1e9;
            new Environment() {}.rest(Math.max(0, due.at - now));
            Visit visit = due.client.visit();
            if (visit.round >= 0) {
                String outcome = visit.accepted ? "accepted" : visit.reason;
                outcomes.merge(outcome, 1, Integer::sum);
                due.visits++;
                System.err.println(due.name + ": round " + visit.round + ": " + outcome);
            }
            if (!visit.finished && (visits == 0 || due.visits < visits)) {
                due.at = (System.nanoTime() - began) / 1e9 + visit.waitSeconds;
                queue.add(due);
            }
        }
        StringBuilder told = new StringBuilder();
        for (Map.Entry<String, Integer> outcome : outcomes.entrySet()) {
            told.append(told.length() > 0 ? "\n" : "").append(outcome.getKey()).append(": ").append(outcome.getValue());
        }
        return told.length() > 0 ? told.toString() : "never asked";
    }

    private static TrainEngine.Loader loader(String litert) {
        if (litert == null) {
            return TfLite.loader(1);
        }
        if (!Files.isRegularFile(Paths.get(litert))) {
            throw new IllegalArgumentException("--litert must name libLiteRt.so of the Python wheel ai-edge-litert 2.3,"
                    + " e.g. .venv/lib/python3.11/site-packages/ai_edge_litert/libLiteRt.so; got " + litert);
        }
        return LiteRt.loader(Paths.get(litert).toAbsolutePath().toString());
    }

    private static List<Path> files(Path data, int fleet) throws IOException {
        List<Path> files = new ArrayList<>();
        if (Files.isDirectory(data)) {
            try (DirectoryStream<Path> found = Files.newDirectoryStream(data, "*.npz")) {
                for (Path file : found) {
                    files.add(file);
                }
            }
            Collections.sort(files);
        } else if (Files.exists(data)) {
            files.add(data);
        }
        if (files.size() < fleet) {
            throw new IllegalArgumentException(data + " holds " + files.size() + " .npz files; --fleet " + fleet + " needs more");
        }
        return files.subList(0, fleet);
    }
}
