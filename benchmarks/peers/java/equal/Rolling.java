package peers.equal;

/**
 * Listeners of each row in the last hour, three longs a slot: the listener, latest minute | row, and a bit for
 * that minute and for each of the 63 before. The windows are counted by one pass at a publication.
 */
final class Rolling {
  static final int[] WIDTHS = {5, 60};
  /** What an addition found: a listener that the last hour lacks, one that it has, or this very minute. */
  static final int NEW = 0, KNOWN = 1, SAME = 2;
  private static final long LOW = 0xFFFFFFFFL;
  private static final int CHUNK = 3 << 13;
  private long[] table = new long[3 << 16];
  private int mask = (1 << 16) - 1, used;
  /** The latest minute of the listener that was added last, before it was. */
  int before;

  int add(int row, int minute, long who, int now) {
    if (2 * (used + 1) > mask) makeRoom(now);
    int at = find(who, row);
    if (table[at] == 0) {
      used++;
      table[at] = who;
      table[at + 1] = (long) minute << 32 | row;
      table[at + 2] = 1;
      return NEW;
    }
    int latest = (int) (table[at + 1] >>> 32);
    before = latest;
    if (minute > latest) {
      table[at + 2] = (minute - latest < 64 ? table[at + 2] << minute - latest : 0) | 1;
      table[at + 1] = (long) minute << 32 | row;
      return latest > now - WIDTHS[1] ? KNOWN : NEW;
    }
    if (latest - minute >= 64) return KNOWN;
    long bit = 1L << latest - minute;
    if ((table[at + 2] & bit) != 0) return SAME;
    table[at + 2] |= bit;
    return KNOWN;
  }

  /** Distinct listeners by window and row up to the minute `now`; a window with a crowded minute is a sketch's. */
  long[][] counts(int now, int rows, Minutes minutes) {
    long[][] counts = new long[WIDTHS.length][rows];
    byte[][][] sketches = new byte[WIDTHS.length][rows][];
    for (int width = 0; width < WIDTHS.length; width++) {
      for (Minute one : minutes.live.subMap(now - WIDTHS[width] + 1, now + 1).values()) {
        for (int row = 0; row < rows; row++) {
          if (sketches[width][row] == null && one.crowded(row)) {
            sketches[width][row] = new byte[HyperLogLog.REGISTERS];
          }
        }
      }
    }
    for (int at = 0; at < table.length; at += 3) {
      if (table[at] == 0) continue;
      int row = (int) table[at + 1], ahead = (int) (table[at + 1] >>> 32) - now;
      for (int width = 0; width < WIDTHS.length; width++) {
        int oldest = ahead + WIDTHS[width];
        if (oldest <= 0) continue;
        long within = table[at + 2] & (oldest >= 64 ? -1L : (1L << oldest) - 1);
        if (ahead > 0) within = ahead < 64 ? within >>> ahead : 0;
        if (within == 0) continue;
        counts[width][row]++;
        if (sketches[width][row] != null) {
          int register = HyperLogLog.register(table[at]), rank = HyperLogLog.rank(table[at]);
          if (sketches[width][row][register] < rank) sketches[width][row][register] = (byte) rank;
        }
      }
    }
    for (int width = 0; width < WIDTHS.length; width++) {
      for (int row = 0; row < rows; row++) {
        if (sketches[width][row] == null) continue;
        double found = HyperLogLog.estimate(HyperLogLog.histogram(sketches[width][row]));
        counts[width][row] = Math.max(Distinct.EXACT + 1, (long) Math.rint(found));
      }
    }
    return counts;
  }

  private int find(long who, int row) {
    int at = (int) SipHash.mixed(who, row + 1) & mask;
    while (table[3 * at] != 0 && (table[3 * at] != who || (int) table[3 * at + 1] != row)) at = at + 1 & mask;
    return 3 * at;
  }

  private void makeRoom(int now) {
    long[] old = table;
    int live = 0;
    for (int at = 0; at < old.length; at += 3) if (isLive(old, at, now)) live++;
    while (4 * live > mask) mask = 2 * mask + 1;
    table = new long[3 * (mask + 1)];
    used = 0;
    for (int at = 0; at < old.length; at += 3) if (isLive(old, at, now)) put(old, at);
  }

  private static boolean isLive(long[] from, int at, int now) {
    return from[at] != 0 && (int) (from[at + 1] >>> 32) > now - WIDTHS[1];
  }

  private void put(long[] from, int at) {
    System.arraycopy(from, at, table, find(from[at], (int) from[at + 1]), 3);
    used++;
  }

  void save(Saved out, int now) {
    long[] chunk = new long[CHUNK];
    int size = 0;
    for (int at = 0; at < table.length; at += 3) {
      if (!isLive(table, at, now)) continue;
      System.arraycopy(table, at, chunk, size, 3);
      if ((size += 3) == CHUNK) {
        out.add(chunk);
        chunk = new long[CHUNK];
        size = 0;
      }
    }
    out.add(java.util.Arrays.copyOf(chunk, size));
  }

  void load(Object saved) {
    long[] some = (long[]) saved;
    for (int at = 0; at < some.length; at += 3) {
      if (2 * (used + 1) > mask) makeRoom(0);
      put(some, at);
    }
  }
}
