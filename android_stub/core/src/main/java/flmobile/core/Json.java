package flmobile.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON (RFC 8259) from strangers: objects are {@code Map}, arrays {@code List}, numbers {@code Long} where they are whole
 * and fit, else {@code Double}. Anything else is a {@link WireException} of reason {@code json}; nothing nests deeply.
 */
public final class Json {
    private static final int MOST_DEPTH = 32;
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Returns the object that some UTF-8 bytes are. */
    public static Map<String, Object> object(byte[] body) {
        return object(parse(body));
    }

    /** Returns a value as an object. */
    @SuppressWarnings("unchecked")
    public static Map<String, Object> object(Object value) {
        if (!(value instanceof Map)) {
            throw new WireException("json", "expected a JSON object; is there another server at this address?");
        }
        return (Map<String, Object>) value;
    }

    /** Returns a field that must be there. */
    public static Object field(Map<String, Object> object, String name) {
        Object value = object.get(name);
        if (value == null) {
            throw new WireException("json", "field '" + name + "' is missing");
        }
        return value;
    }

    public static Map<String, Object> object(Map<String, Object> object, String name) {
        return object(field(object, name));
    }

    public static List<?> list(Object value) {
        if (!(value instanceof List)) {
            throw new WireException("json", "expected a list");
        }
        return (List<?>) value;
    }

    public static String text(Object value) {
        if (!(value instanceof String)) {
            throw new WireException("json", "expected text");
        }
        return (String) value;
    }

    public static String text(Map<String, Object> object, String name) {
        return text(field(object, name));
    }

    public static boolean flag(Object value) {
        if (!(value instanceof Boolean)) {
            throw new WireException("json", "expected true or false");
        }
        return (Boolean) value;
    }

    /** Returns a whole number of a range. */
    public static long whole(Object value, long least, long most) {
        if (!(value instanceof Long) || (Long) value < least || (Long) value > most) {
            throw new WireException("json", "expected a whole number from " + least + " to " + most);
        }
        return (Long) value;
    }

    public static long whole(Map<String, Object> object, String name, long least, long most) {
        return whole(field(object, name), least, most);
    }

    /** Returns a finite number. */
    public static double number(Map<String, Object> object, String name) {
        return number(field(object, name), "field '" + name + "'");
    }

    /** Returns finite numbers. */
    public static List<Double> numbers(Object value) {
        List<Double> out = new ArrayList<>();
        for (Object each : list(value)) {
            out.add(number(each, "a list"));
        }
        return out;
    }

    private static double number(Object value, String where) {
        if (!(value instanceof Number)) {
            throw new WireException("json", where + ": expected a number");
        }
        return ((Number) value).doubleValue();
    }

    /** Returns a SHA-256 as 64 lower-case digits. */
    public static String sha256(Map<String, Object> object, String name) {
        String value = text(object, name);
        if (!value.matches("[0-9a-f]{64}")) {
            throw new WireException("json", "field '" + name + "': expected a SHA-256, 64 hexadecimal digits");
        }
        return value;
    }

    /** Returns what some UTF-8 bytes say. */
    public static Object parse(byte[] body) {
        String text;
        try {
            text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString();
        } catch (CharacterCodingException damaged) {
            throw new WireException("json", "not UTF-8");
        }
        Json json = new Json(text);
        Object value = json.value(0);
        json.blank();
        if (json.at < text.length()) {
            throw json.odd();
        }
        return value;
    }

    private WireException odd() {
        return new WireException("json", "not JSON at character " + at);
    }

    private void blank() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private boolean next(char wanted) {
        blank();
        if (at < text.length() && text.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private void need(char wanted) {
        if (!next(wanted)) {
            throw odd();
        }
    }

    private Object value(int depth) {
        blank();
        if (depth > MOST_DEPTH || at >= text.length()) {
            throw odd();
        }
        char first = text.charAt(at);
        if (first == '{') {
            return members(depth);
        }
        if (first == '[') {
            return elements(depth);
        }
        if (first == '"') {
            return string();
        }
        for (String word : new String[] {"true", "false", "null"}) {
            if (text.startsWith(word, at)) {
                at += word.length();
                return word.equals("null") ? null : (Object) word.equals("true");
            }
        }
        return number();
    }

    private Map<String, Object> members(int depth) {
        Map<String, Object> out = new LinkedHashMap<>();
        need('{');
        if (next('}')) {
            return out;
        }
        do {
            blank();
            String name = string();
            need(':');
            out.put(name, value(depth + 1));
        } while (next(','));
        need('}');
        return out;
    }

    private List<Object> elements(int depth) {
        List<Object> out = new ArrayList<>();
        need('[');
        if (next(']')) {
            return out;
        }
        do {
            out.add(value(depth + 1));
        } while (next(','));
        need(']');
        return out;
    }

    private String string() {
        need('"');
        StringBuilder out = new StringBuilder();
        while (at < text.length()) {
            char c = text.charAt(at++);
            if (c == '"') {
                return out.toString();
            }
            if (c < ' ') {
                throw odd();
            }
            out.append(c == '\\' ? escaped() : c);
        }
        throw odd();
    }

    private char escaped() {
        if (at >= text.length()) {
            throw odd();
        }
        char c = text.charAt(at++);
        if (c == 'u') {
            int code = 0;
            for (int end = at + 4; at < end; at++) {
                int digit = at < text.length() ? Character.digit(text.charAt(at), 16) : -1;
                if (digit < 0) {
                    throw odd();
                }
                code = 16 * code + digit;
            }
            return (char) code;
        }
        int which = "\"\\/bfnrt".indexOf(c);
        if (which < 0) {
            throw odd();
        }
        return "\"\\/\b\f\n\r\t".charAt(which);
    }

    private Number number() {
        int from = at;
        boolean whole = true;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            whole &= "+.eE".indexOf(text.charAt(at)) < 0;
            at++;
        }
        String digits = text.substring(from, at);
        if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) {
            throw odd();
        }
        if (whole && digits.length() <= 18) {
            return Long.valueOf(digits);
        }
        double number = Double.parseDouble(digits);
        if (Double.isInfinite(number)) {
            throw odd();
        }
        return number;
    }

    /** Returns a value as JSON text: maps, lists, texts, flags, numbers and null. */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out);
        return out.toString();
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof Map) {
            char before = '{';
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                out.append(before);
                quote((String) entry.getKey(), out);
                out.append(':');
                write(entry.getValue(), out);
                before = ',';
            }
            out.append(before == '{' ? "{}" : "}");
        } else if (value instanceof List) {
            char before = '[';
            for (Object each : (List<?>) value) {
                out.append(before);
                write(each, out);
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else if (value instanceof String) {
            quote((String) value, out);
        } else {
            out.append(value);
        }
    }

    private static void quote(String text, StringBuilder out) {
        out.append('"');
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
