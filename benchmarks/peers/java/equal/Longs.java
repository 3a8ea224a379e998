package peers.equal;

import java.util.Arrays;

/** A list of longs. */
final class Longs {
  private long[] values = new long[16];
  private int size;

  void add(long value) {
    if (size == values.length) values = Arrays.copyOf(values, 2 * size);
    values[size++] = value;
  }

  int size() {
    return size;
  }

  long get(int i) {
    return values[i];
  }

  long[] array() {
    return Arrays.copyOf(values, size);
  }

  static Longs of(long[] values) {
    Longs list = new Longs();
    for (long value : values) list.add(value);
    return list;
  }
}
