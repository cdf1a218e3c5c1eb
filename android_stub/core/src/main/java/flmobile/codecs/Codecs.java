package flmobile.codecs;

import flmobile.codecs.ecsq.Ecsq;
import flmobile.core.WireException;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Codecs by the names that a server writes: every one that Python has. */
public final class Codecs {
    /** Stages whose name says all. */
    private static final String UNIFORM = "q[1-8]";

    private static final BigInteger MOST_SEED = BigInteger.ONE.shiftLeft(64);

    private Codecs() {}

    /**
     * Returns the codec that a name stands for.
     *
     * @throws WireException reason {@code codec}: this client does not know it
     */
    public static Codec parse(String text) {
        try {
            String family = text.contains(":") ? text.substring(0, text.indexOf(':')) : text;
            String argument = text.substring(Math.min(text.length(), family.length() + 1));
            switch (family) {
                case "ecsq":
                    return ecsq(text, options(argument));
                case "linear":
                    return linear(text, options(argument));
                case "sketch":
                    return sketch(text, options(argument));
                case "powersgd":
                    int rank = Integer.parseInt(argument);
                    check(rank >= 1);
                    return new PowerSgd(text, rank);
                default:
                    return chain(text);
            }
        } catch (IllegalArgumentException | ArithmeticException malformed) {
            throw unknown(text);
        }
    }

    private static WireException unknown(String text) {
        return new WireException("codec", "this client does not know codec '" + text + "'; is it older than the server?");
    }

    private static Map<String, String> options(String argument) {
        Map<String, String> out = new HashMap<>();
        for (String part : argument.split(",")) {
            int at = part.indexOf('=');
            if (at >= 0) {
                out.put(part.substring(0, at).trim(), part.substring(at + 1).trim());
            } else {
                check(part.isEmpty());
            }
        }
        return out;
    }

    private static String option(Map<String, String> options, String key, String otherwise) {
        String found = options.remove(key);
        return found == null ? otherwise : found;
    }

    private static void check(boolean holds) {
        if (!holds) {
            throw new IllegalArgumentException();
        }
    }

    private static Codec ecsq(String text, Map<String, String> options) {
        String rounding = option(options, "rounding", "stochastic");
        boolean absolute = options.containsKey("abs");
        String usual = rounding.equals("stochastic") ? "8" : "2";
        double step = Double.parseDouble(option(options, absolute ? "abs" : "step", usual));
        boolean weighed = options.containsKey("examples");
        int examples = Integer.parseInt(option(options, "examples", "0"));
        int rank = Integer.parseInt(option(options, "rank", "15")); // this encoder never makes use of it
        check(step > 0 && !Double.isInfinite(step) && rank >= 0 && rank <= 15 && options.isEmpty());
        check(weighed ? examples > 0 : examples == 0);
        return new Ecsq(text, step, absolute, examples, Ecsq.Rounds.valueOf(rounding.toUpperCase(Locale.ROOT)));
    }

    private static Codec linear(String text, Map<String, String> options) {
        double clip = Double.parseDouble(option(options, "clip", ""));
        int bits = Integer.parseInt(option(options, "bits", "8"));
        int devices = Integer.parseInt(option(options, "devices", "100"));
        double keep = Double.parseDouble(option(options, "keep", "1.0"));
        long seed = seed(option(options, "seed", "0"));
        check(clip > 0 && clip < 1e30 && bits >= 1 && bits <= 16 && devices >= 1 && devices < 1 << 16);
        check(keep > 0 && keep <= 1 && options.isEmpty());
        return new Linear(text, clip, bits, devices, keep, seed);
    }

    private static Codec sketch(String text, Map<String, String> options) {
        int k = Integer.parseInt(option(options, "k", "3072"));
        int bits = Integer.parseInt(option(options, "bits", "1"));
        int width = Integer.parseInt(option(options, "width", "0"));
        double step = Double.parseDouble(option(options, "step", "0"));
        long seed = seed(option(options, "seed", "0"));
        check(k >= 1 && k < 128 && Integer.bitCount(k) == 1 || k >= 128 && k < 1 << 28 && k % 128 == 0);
        check(bits >= 1 && bits <= 4 && options.isEmpty());
        check(width == 0 ? step == 0 : width >= 2 && width <= 32 && step > 0 && step < 1e30);
        return new Sketch(text, k, bits, width, step, seed);
    }

    private static long seed(String text) {
        BigInteger seed = new BigInteger(text);
        check(seed.signum() >= 0 && seed.compareTo(MOST_SEED) < 0);
        return seed.longValue();
    }

    private static Codec chain(String text) {
        boolean flat = false;
        List<Pruner> prunes = new ArrayList<>();
        Quantizer quantize = null;
        List<Integer> packs = new ArrayList<>();
        int reached = 0; // flat 0, prune 1, quantize 2, pack 3
        for (String part : text.split("\\+", -1)) {
            int colon = part.indexOf(':');
            String stage = colon < 0 ? part : part.substring(0, colon);
            String argument = colon < 0 ? null : part.substring(colon + 1);
            int kind = 2;
            if (stage.equals("flat")) {
                check(!flat && argument == null);
                flat = true;
                kind = 0;
            } else if (stage.equals("deflate")) {
                packs.add(argument == null ? 6 : Integer.parseInt(argument));
                check(packs.get(packs.size() - 1) >= 1 && packs.get(packs.size() - 1) <= 9);
                kind = 3;
            } else if (stage.equals("topk") || stage.equals("threshold") || stage.equals("dgc")) {
                check(argument != null);
                prunes.add(pruner(stage, Double.parseDouble(argument)));
                kind = 1;
            } else {
                check(quantize == null);
                quantize = quantizer(stage, argument);
            }
            check(kind >= reached);
            reached = kind;
        }
        return new Chain(text, flat, prunes, quantize == null ? new Quantizer.Raw() : quantize, packs);
    }

    private static Pruner pruner(String stage, double number) {
        if (stage.equals("threshold")) {
            check(number >= 0 && !Double.isInfinite(number));
            return Pruner.threshold(number);
        }
        check(number > 0 && number <= 1);
        return stage.equals("topk") ? Pruner.topK(number) : Pruner.sampled(number);
    }

    private static Quantizer quantizer(String stage, String argument) {
        if (stage.matches(UNIFORM)) {
            check(argument == null || argument.equals("nearest") || argument.equals("stochastic"));
            return new Quantizer.Uniform(stage.charAt(1) - '0', "nearest".equals(argument));
        }
        if (stage.equals("qsgd")) {
            int levels = Integer.parseInt(String.valueOf(argument));
            check(levels >= 1 && levels <= 1 << 15);
            return new Qsgd(levels);
        }
        if (stage.equals("eden")) {
            double bits = Double.parseDouble(String.valueOf(argument));
            check(bits > 0 && (bits < 1 || bits <= 4 && bits == Math.rint(bits)));
            return new Eden(bits);
        }
        check(argument == null);
        switch (stage) {
            case "none":
                return new Quantizer.Raw();
            case "float16":
                return new Quantizer.Half();
            case "terngrad":
                return new Quantizer.TernGrad();
            case "sign":
                return new Quantizer.Sign();
            default:
                throw new IllegalArgumentException();
        }
    }
}
