package flmobile.client;

import flmobile.core.WireException;
import flmobile.core.Writer;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.util.Arrays;
import java.util.Map;
import java.util.Timer;
import java.util.TimerTask;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLSocketFactory;

/** One HTTP request and its answer, however much of it comes. */
final class Http {
    static final int MOST_ANSWER_BYTES = 1 << 20;
    /** Ends requests whose answer does not begin; the socket's own time limit begins anew with every byte. */
    private static final Timer WATCH = new Timer("fl-http", true);

    private final String base;
    private final int timeoutMs;
    private final SSLSocketFactory trusted;

    /** An answer; {@code cut} if the connection ended before the body did. */
    static final class Response {
        final int status;
        final byte[] body;
        final boolean cut;

        Response(int status, byte[] body, boolean cut) {
            this.status = status;
            this.body = body;
            this.cut = cut;
        }
    }

    /**
     * @param base {@code http://host:port} or {@code https://host}
     * @param trusted what makes TLS connections; null trusts what the system trusts
     */
    Http(String base, int timeoutMs, SSLSocketFactory trusted) {
        if (!base.matches("https?://[^/?#]+/?")) {
            throw new IllegalArgumentException("the server must be http://HOST:PORT or https://HOST, got '" + base + "'");
        }
        this.base = base.endsWith("/") ? base.substring(0, base.length() - 1) : base;
        this.timeoutMs = timeoutMs;
        this.trusted = trusted;
    }

    String base() {
        return base;
    }

    /** Returns how many bytes a try of an endless download must bring to be worth another. */
    int leastBytes() {
        return timeoutMs;
    }

    /**
     * Asks once. A byte a millisecond is the least that must move, beside the time limit: a server that trickles is as good as
     * one that is silent.
     *
     * @param body null for none
     * @param most bytes of the answer that are read; a longer one is a {@link WireException}
     * @throws IOException no answer
     */
    Response ask(String method, String path, Map<String, String> headers, byte[] body, long most) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(base + path).openConnection();
        connection.setRequestMethod(method);
        connection.setConnectTimeout(timeoutMs);
        connection.setReadTimeout(timeoutMs);
        connection.setInstanceFollowRedirects(false);
        connection.setUseCaches(false);
        connection.setRequestProperty("Accept-Encoding", "identity"); // Android asks for gzip by itself
        if (trusted != null && connection instanceof HttpsURLConnection) {
            ((HttpsURLConnection) connection).setSSLSocketFactory(trusted);
        }
        for (Map.Entry<String, String> header : headers.entrySet()) {
            connection.setRequestProperty(header.getKey(), header.getValue());
        }
        long began = System.nanoTime();
        TimerTask watch = new TimerTask() {
            @Override
            public void run() {
                connection.disconnect();
            }
        };
        WATCH.schedule(watch, timeoutMs + (body == null ? 0 : body.length), timeoutMs); // the platform may try again by itself
        int status;
        try {
            if (body != null) {
                connection.setDoOutput(true);
                connection.getOutputStream().write(body);
            }
            status = connection.getResponseCode();
        } finally {
            watch.cancel();
        }
        if (status < 0) {
            throw new IOException("no answer, or not HTTP");
        }
        InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        if (stream == null) {
            return new Response(status, new byte[0], false);
        }
        Writer out = new Writer();
        boolean cut = false;
        try (InputStream in = stream) {
            byte[] part = new byte[1 << 14];
            for (int count = in.read(part); count >= 0; count = in.read(part)) {
                out.bytes(Arrays.copyOf(part, count));
                if ((System.nanoTime() - began) / 1_000_000 > timeoutMs + (body == null ? 0 : body.length) + out.size()) {
                    connection.disconnect();
                    return new Response(status, out.toBytes(), true);
                }
                if (out.size() > Math.max(most, MOST_ANSWER_BYTES)) {
                    connection.disconnect();
                    throw new WireException("too-long", path + ": an answer of more than " + most + " bytes");
                }
            }
        } catch (IOException broken) {
            cut = true;
        }
        long length = connection.getContentLength();
        cut |= length >= 0 && out.size() < length;
        return new Response(status, out.toBytes(), cut);
    }
}
