package peers.equal;

/** The arithmetic of sketches of 2^14 registers: O. Ertl, "New cardinality estimation algorithms", 2017. */
final class HyperLogLog {
  static final int PRECISION = 14, REGISTERS = 1 << PRECISION, RANKS = 64 - PRECISION + 2;

  private HyperLogLog() {}

  static int register(long who) {
    return (int) (who >>> 64 - PRECISION);
  }

  static int rank(long who) {
    return 1 + Math.min(Long.numberOfLeadingZeros(who << PRECISION), 64 - PRECISION);
  }

  /** The number of distinct hashes in registers of which `histogram[k]` have rank k. */
  static double estimate(int[] histogram) {
    double m = REGISTERS, x = 1 - histogram[RANKS - 1] / m, z = 0;
    if (x != 0 && x != 1) {
      double y = 1, tau = 1 - x, before;
      do {
        x = Math.sqrt(x);
        before = tau;
        y *= 0.5;
        tau -= (1 - x) * (1 - x) * y;
      } while (tau != before);
      z = m * tau / 3;
    }
    for (int k = RANKS - 2; k > 0; k--) z = 0.5 * (z + histogram[k]);
    x = histogram[0] / m;
    if (x == 1) return 0;
    double y = 1, sigma = x, before;
    do {
      x *= x;
      before = sigma;
      sigma += x * y;
      y += y;
    } while (sigma != before);
    return m * m / (2 * Math.log(2)) / (z + m * sigma);
  }

  static int[] histogram(byte[] registers) {
    int[] counts = new int[RANKS];
    for (byte value : registers) counts[value]++;
    return counts;
  }
}
