package peers.equal;

/** The counts of a flight by labels that no minute has. */
final class Totals {
  private static final int DELAYS = 15, FIRST_MS = 125, OTHERS = 8;
  static final int SAVED = OTHERS + DELAYS + 1;
  long pixels, consented, repeated, tooLate, invalid, latest, first = Long.MAX_VALUE;
  /** Whether a valid impression came, a repeated one too. */
  boolean impressed;
  /** Pixels by class of their delay: 0 of those whose receipt is unknown. */
  final long[] delays = new long[DELAYS + 1];

  /** The class of a delay: up to 125 ms, up to twice as much, and so on. */
  static int delay(long ms) {
    int found = 1;
    for (long bound = FIRST_MS; ms > bound && found < DELAYS; bound *= 2) found++;
    return found;
  }

  /** The upper bound in microseconds of the class in which the median lies; NIL without a pixel. */
  static long median(long[] delays) {
    long all = 0, passed = 0;
    for (int i = 1; i <= DELAYS; i++) all += delays[i];
    if (all == 0) return Flush.NIL;
    int at = 0;
    while (2 * passed < all) passed += delays[++at];
    return at == DELAYS ? 86_400_000_000L : 1000L * FIRST_MS << at - 1;
  }

  void save(long[] to, int at) {
    long[] saved = {pixels, consented, repeated, tooLate, invalid, latest, first, impressed ? 1 : 0};
    System.arraycopy(saved, 0, to, at, OTHERS);
    System.arraycopy(delays, 0, to, at + OTHERS, delays.length);
  }

  static Totals loaded(long[] saved, int at) {
    Totals of = new Totals();
    of.pixels = saved[at];
    of.consented = saved[at + 1];
    of.repeated = saved[at + 2];
    of.tooLate = saved[at + 3];
    of.invalid = saved[at + 4];
    of.latest = saved[at + 5];
    of.first = saved[at + 6];
    of.impressed = saved[at + 7] == 1;
    System.arraycopy(saved, at + OTHERS, of.delays, 0, of.delays.length);
    return of;
  }
}
