package peers.equal;

import java.util.Arrays;

/** The counts of one minute by labels, and its listeners by row. */
final class Minute {
  /** Columns: the first eight are the events' codes. */
  static final int ORPHANS = 8, REPAIRED = 9, UNLINKED = 9, REACHED = 15, COLUMNS = 16, SHIFT = 4;
  final int minute;
  int[] counts = new int[COLUMNS << 6], heard = new int[64];
  /** Slots of milestones that wait for their start. */
  Longs held = new Longs();
  boolean isFinal;

  Minute(int minute) {
    this.minute = minute;
  }

  void add(int labels, int column, int by) {
    int at = labels << SHIFT | column;
    if (at >= counts.length) counts = Arrays.copyOf(counts, Math.max(2 * counts.length, (labels + 1) << SHIFT));
    counts[at] += by;
  }

  void hear(int row) {
    if (row >= heard.length) heard = Arrays.copyOf(heard, Math.max(2 * heard.length, row + 1));
    heard[row]++;
  }

  boolean crowded(int row) {
    return row < heard.length && heard[row] > Distinct.EXACT;
  }

  Object[] saved() {
    return new Object[] {minute, isFinal, counts.clone(), heard.clone(), held.array()};
  }

  static Minute loaded(Object saved) {
    Object[] parts = (Object[]) saved;
    Minute of = new Minute((int) parts[0]);
    of.isFinal = (boolean) parts[1];
    of.counts = (int[]) parts[2];
    of.heard = (int[]) parts[3];
    of.held = Longs.of((long[]) parts[4]);
    return of;
  }
}
