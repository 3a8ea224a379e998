package peers;

import java.io.Serializable;

/** A placement's minute: six counts, each play and event once, and its distinct listeners. */
public class Minute implements Serializable {
  private final int[] counts = new int[6];
  private final Longs seen = new Longs();
  private final Longs listeners = new Longs();

  public Minute add(Event event) {
    if (event.kind >= 0 && seen.add(event.play * 8 + event.kind + 1)) {
      counts[event.kind]++;
      if (event.kind < 2 && event.consent) listeners.add(event.listener);
    }
    return this;
  }

  /** What both have seen counts once: with snapshots on, Jet sends half-made aggregates on. */
  public Minute merge(Minute other) {
    for (long key : other.seen.table) if (key != 0 && seen.add(key)) counts[(int) (key - 1 & 7)]++;
    for (long key : other.listeners.table) if (key != 0) listeners.add(key);
    return this;
  }

  public String row(String placement, long minute) {
    StringBuilder row = new StringBuilder(placement).append(',').append(minute);
    for (int count : counts) row.append(',').append(count);
    return row.append(',').append(listeners.size).toString();
  }

  /** A set of longs by open addressing. */
  private static class Longs implements Serializable {
    long[] table = new long[32];
    int size;

    boolean add(long key) {
      if (key == 0) key = 1;
      int mask = table.length - 1, i = (int) (key * 0x9E3779B97F4A7C15L >>> 40) & mask;
      while (table[i] != 0) {
        if (table[i] == key) return false;
        i = i + 1 & mask;
      }
      table[i] = key;
      if (++size * 2 > table.length) grow();
      return true;
    }

    private void grow() {
      long[] old = table;
      table = new long[old.length * 2];
      size = 0;
      for (long key : old) if (key != 0) add(key);
    }
  }
}
