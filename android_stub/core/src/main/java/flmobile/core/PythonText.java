package flmobile.core;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;

/** Numbers as Python writes them: the shortest digits that read back as the same float64. */
public final class PythonText {
    private PythonText() {}

    /** Returns {@code repr(number)} of a finite number. */
    public static String of(double number) {
        if (number == 0) {
            return 1 / number < 0 ? "-0.0" : "0.0";
        }
        BigDecimal exact = new BigDecimal(Math.abs(number));
        BigDecimal shortest = exact;
        for (int digits = 1; digits <= 17; digits++) {
            shortest = exact.round(new MathContext(digits, RoundingMode.HALF_EVEN));
            if (shortest.doubleValue() == Math.abs(number)) {
                break;
            }
        }
        String digits = shortest.stripTrailingZeros().unscaledValue().toString();
        int point = shortest.precision() - shortest.scale(); // 0.digits · 10^point
        String sign = number < 0 ? "-" : "";
        if (point > 16 || point < -3) {
            String rest = digits.length() > 1 ? "." + digits.substring(1) : "";
            int exponent = point - 1;
            String size = (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
            return sign + digits.charAt(0) + rest + "e" + (exponent < 0 ? "-" : "+") + size;
        }
        if (point <= 0) {
            return sign + "0." + new String(new char[-point]).replace('\0', '0') + digits;
        }
        String padded = digits + new String(new char[Math.max(0, point - digits.length())]).replace('\0', '0');
        return sign + padded.substring(0, point) + "." + (padded.length() > point ? padded.substring(point) : "0");
    }
}
