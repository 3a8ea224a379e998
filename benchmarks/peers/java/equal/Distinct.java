package peers.equal;

import java.util.Arrays;

/** Distinct listeners of each row: a set of up to `EXACT`, then a sketch. */
final class Distinct {
  static final int EXACT = 1000;
  private static final int SMALLEST = 16;
  private long[][] sets = new long[64][];
  private int[] counts = new int[64];
  private byte[][] registers = new byte[64][];
  private int[][] histograms = new int[64][];

  void add(int row, long who) {
    if (row >= counts.length) grow(row + 1);
    if (registers[row] != null) {
      raise(row, who);
      return;
    }
    long[] set = sets[row];
    if (set == null) set = sets[row] = new long[SMALLEST];
    int mask = set.length - 1, slot = (int) who & mask;
    while (set[slot] != 0) {
      if (set[slot] == who) return;
      slot = slot + 1 & mask;
    }
    set[slot] = who;
    int count = ++counts[row];
    if (count > EXACT) toRegisters(row);
    else if (2 * count > set.length) sets[row] = rehashed(set);
  }

  /** Distinct listeners of a row: exact, or its sketch's estimate, which is above `EXACT`. */
  long count(int row) {
    if (row >= counts.length) return 0;
    if (registers[row] == null) return counts[row];
    return Math.max(EXACT + 1, (long) Math.rint(HyperLogLog.estimate(histograms[row])));
  }

  private void raise(int row, long who) {
    int at = HyperLogLog.register(who), rank = HyperLogLog.rank(who), before = registers[row][at];
    if (rank <= before) return;
    registers[row][at] = (byte) rank;
    histograms[row][before]--;
    histograms[row][rank]++;
  }

  private void toRegisters(int row) {
    registers[row] = new byte[HyperLogLog.REGISTERS];
    histograms[row] = new int[HyperLogLog.RANKS];
    histograms[row][0] = HyperLogLog.REGISTERS;
    for (long who : sets[row]) if (who != 0) raise(row, who);
    sets[row] = null;
  }

  private static long[] rehashed(long[] set) {
    long[] wider = new long[2 * set.length];
    int mask = wider.length - 1;
    for (long who : set) {
      if (who == 0) continue;
      int slot = (int) who & mask;
      while (wider[slot] != 0) slot = slot + 1 & mask;
      wider[slot] = who;
    }
    return wider;
  }

  private void grow(int rows) {
    int room = Math.max(rows, 2 * counts.length);
    sets = Arrays.copyOf(sets, room);
    counts = Arrays.copyOf(counts, room);
    registers = Arrays.copyOf(registers, room);
    histograms = Arrays.copyOf(histograms, room);
  }

  /** Sets as the row, how many, and the listeners, one after another; sketches apart. */
  void save(Saved out) {
    for (int row = 0; row < counts.length; row++) {
      if (registers[row] != null) out.add(new Object[] {row, registers[row].clone()});
    }
    Longs sets = new Longs();
    for (int row = 0; row < counts.length; row++) {
      if (this.sets[row] == null) continue;
      sets.add(row);
      sets.add(counts[row]);
      for (long who : this.sets[row]) if (who != 0) sets.add(who);
    }
    out.add(sets.array());
  }

  void load(Object saved) {
    if (saved instanceof long[] some) {
      for (int i = 0; i < some.length; ) {
        int row = (int) some[i++], count = (int) some[i++];
        for (; count > 0; count--) add(row, some[i++]);
      }
      return;
    }
    Object[] sketch = (Object[]) saved;
    int row = (int) sketch[0];
    if (row >= counts.length) grow(row + 1);
    registers[row] = (byte[]) sketch[1];
    histograms[row] = HyperLogLog.histogram(registers[row]);
    counts[row] = EXACT + 1;
  }
}
