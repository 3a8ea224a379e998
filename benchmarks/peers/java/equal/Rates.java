package peers.equal;

/** Quotients in millionths, rounded half to even. */
final class Rates {
  private Rates() {}

  static long of(long part, long whole) {
    if (whole == 0) return Flush.NIL;
    long millionths = part * 1_000_000 / whole, rest = part * 1_000_000 % whole;
    boolean isUp = 2 * rest > whole || 2 * rest == whole && (millionths & 1) == 1;
    return isUp ? millionths + 1 : millionths;
  }

  /** Millionths as a decimal without zeros at its end. */
  static String text(long millionths) {
    long whole = millionths / 1_000_000, part = millionths % 1_000_000;
    if (part == 0) return Long.toString(whole);
    String places = Long.toString(1_000_000 + part);
    int end = places.length();
    while (places.charAt(end - 1) == '0') end--;
    return whole + "." + places.substring(1, end);
  }
}
