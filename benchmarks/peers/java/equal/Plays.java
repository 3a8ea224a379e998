package peers.equal;

/**
 * Plays by open addressing, four longs a slot, so that a pixel is one probe: a pixel counts once, a milestone in
 * its start's minute, a later one implies the earlier ones, one before its start waits in a slot of its own.
 *
 * <p>Words: the key; labels of the start | flags; minute of the reach | minute of the start, or of what waits;
 * labels of the reach | time of the last pixel (42 bits).
 */
final class Plays {
  static final long HORIZON_MS = 30 * 60_000, LATENESS_MS = 10 * 60_000;
  private static final int FLAGS = 1, MINUTES = 2, TIMES = 3;
  private static final int COHORT = 16;
  private static final long STARTED = 1L << 17, REACHED = 1L << 22, HELD = 1L << 23, KINDS = 3L << 23;
  private static final long JOINED = 2L << 23, LOW = 0xFFFFFFFFL, TIME = (1L << 42) - 1, INVALID_SPACE = 0x5BD1E995L;
  private static final int CHUNK = 1 << 15;

  private long[] table = new long[4 << 16];
  private int mask = (1 << 16) - 1, used;
  private final Counter counter;
  private final Minutes minutes;

  Plays(Counter counter, Minutes minutes) {
    this.counter = counter;
    this.minutes = minutes;
  }

  static boolean isFinal(int minute, long watermark) {
    return (minute + 1L) * 60_000 + LATENESS_MS <= watermark;
  }

  void apply(Block block) {
    for (int i = 0; i < block.count; i++) {
      if (2 * (used + 3) > mask) makeRoom(block.watermark[i]);
      apply(block.play[i], block.info[i], block.labels[i], block.ts[i], block.watermark[i], block.listener[i]);
    }
  }

  private void apply(long key, int info, int labels, long ts, long watermark, long listener) {
    int code = info & Block.CODE, minute = (int) (ts / 60_000);
    boolean linked = (info & Block.LINKED) != 0, invalid = (info & Block.TRAFFIC) != 0;
    if (invalid) key = SipHash.mixed(key, INVALID_SPACE);
    int slot = find(key);
    boolean there = table[slot] != 0, known = there && (table[slot + TIMES] & TIME) + HORIZON_MS >= watermark;
    long flags = known ? table[slot + FLAGS] : 0, seen = 1L << code;
    Totals totals = counter.totals(labels);
    if (known && (!linked || (flags & seen) != 0)) {
      totals.repeated++;
      totals.impressed |= code == PixelLine.IMPRESSION && !invalid;
      return;
    }
    boolean inCohort = linked && code >= PixelLine.FIRST_QUARTILE && code <= PixelLine.COMPLETE;
    boolean started = (flags & STARTED) != 0;
    int home = inCohort && started ? (int) table[slot + MINUTES] : minute;
    if (isFinal(home, watermark)) {
      totals.tooLate++;
      return;
    }
    if (!there) {
      used++;
      table[slot] = key;
    }
    if (!known) {
      table[slot + MINUTES] = 0;
      table[slot + TIMES] = ts;
    } else if ((table[slot + TIMES] & TIME) < ts) {
      table[slot + TIMES] = table[slot + TIMES] & ~TIME | ts;
    }
    flags |= seen;
    table[slot + FLAGS] = flags;
    if (invalid) {
      if (linked && code == PixelLine.START) {
        table[slot + FLAGS] = flags | STARTED;
        table[slot + MINUTES] = minute;
      }
      totals.invalid++;
      return;
    }
    totals.pixels++;
    totals.delays[info >>> Block.DELAY_SHIFT]++;
    if ((info & Block.CONSENTED) != 0) totals.consented++;
    if (ts > totals.latest) totals.latest = ts;
    if (ts < totals.first) totals.first = ts;
    if (listener != 0) {
      counter.reach(labels, minute, listener);
      if (linked) reach(slot, code, labels, minute);
      else if (code == PixelLine.IMPRESSION) minutes.of(minute).add(labels, Minute.REACHED, 1);
    }
    if (code == PixelLine.IMPRESSION || code >= PixelLine.CLICK) {
      totals.impressed |= code == PixelLine.IMPRESSION;
      minutes.of(minute).add(labels, code, 1);
    } else if (!linked) {
      minutes.of(minute).add(labels, code + Minute.UNLINKED, 1);
    } else if (code == PixelLine.START) {
      table[slot + FLAGS] = table[slot + FLAGS] & LOW | STARTED | (long) labels << 32;
      table[slot + MINUTES] = table[slot + MINUTES] & ~LOW | minute;
      minutes.of(minute).add(labels, PixelLine.START, 1);
      if ((flags & 0b111100) != 0) join(slot, labels, minute, watermark);
    } else if (started) {
      count(slot, code, home);
    } else {
      hold(SipHash.mixed(key, code + 1), code, labels, minute, ts);
    }
  }

  /** Count a milestone in its start's minute, with the earlier ones that it implies. */
  private void count(int slot, int code, int home) {
    long flags = table[slot + FLAGS];
    int labels = (int) (flags >>> 32);
    Minute cells = minutes.of(home);
    if ((flags & 1L << code + COHORT) != 0) {
      cells.add(labels, Minute.REPAIRED, -1);
      return;
    }
    for (int each = PixelLine.FIRST_QUARTILE; each <= code; each++) {
      if ((flags & 1L << each + COHORT) != 0) continue;
      flags |= 1L << each + COHORT;
      cells.add(labels, each, 1);
      if (each < code) cells.add(labels, Minute.REPAIRED, 1);
    }
    table[slot + FLAGS] = flags;
  }

  /** Count a play that has a listener once, in the earlier minute of its impression and start. */
  private void reach(int slot, int code, int labels, int minute) {
    if ((table[slot + FLAGS] & REACHED) != 0) {
      int before = (int) (table[slot + MINUTES] >>> 32);
      if (minute > before || minute == before && code != PixelLine.IMPRESSION) return;
      minutes.of(before).add((int) (table[slot + TIMES] >>> 42), Minute.REACHED, -1);
    }
    table[slot + FLAGS] |= REACHED;
    table[slot + MINUTES] = table[slot + MINUTES] & LOW | (long) minute << 32;
    table[slot + TIMES] = table[slot + TIMES] & TIME | (long) labels << 42;
    minutes.of(minute).add(labels, Minute.REACHED, 1);
  }

  private void hold(long key, int code, int labels, int minute, long ts) {
    int slot = find(key);
    if (table[slot] == 0) {
      used++;
      table[slot] = key;
    } else if ((table[slot + FLAGS] & KINDS) == HELD) { // of a play that is forgotten
      minutes.of((int) table[slot + MINUTES]).add((int) (table[slot + FLAGS] >>> 32), Minute.ORPHANS, 1);
    }
    table[slot + FLAGS] = code | HELD | (long) labels << 32;
    table[slot + MINUTES] = minute;
    table[slot + TIMES] = ts;
    minutes.of(minute).held.add(key);
  }

  private void join(int slot, int labels, int minute, long watermark) {
    long joined = 0;
    int latest = PixelLine.START;
    for (int code = PixelLine.FIRST_QUARTILE; code <= PixelLine.COMPLETE; code++) {
      if ((table[slot + FLAGS] & 1L << code) == 0) continue;
      int other = find(SipHash.mixed(table[slot], code + 1));
      if (table[other] == 0 || (table[other + FLAGS] & KINDS) != HELD) continue; // an orphan already
      int held = (int) table[other + MINUTES];
      table[other + FLAGS] = table[other + FLAGS] & ~KINDS | JOINED;
      if (isFinal(held, watermark)) {
        minutes.of(held).add((int) (table[other + FLAGS] >>> 32), Minute.ORPHANS, 1);
      } else {
        joined |= 1L << code;
        latest = code;
      }
    }
    Minute cells = minutes.of(minute);
    for (int code = PixelLine.FIRST_QUARTILE; code <= latest; code++) {
      table[slot + FLAGS] |= 1L << code + COHORT;
      cells.add(labels, code, 1);
      if ((joined & 1L << code) == 0) cells.add(labels, Minute.REPAIRED, 1);
    }
  }

  /** What waits in a minute that has become final is an orphan. */
  void orphans(Minute of) {
    for (int i = 0; i < of.held.size(); i++) {
      int slot = find(of.held.get(i));
      if ((table[slot + FLAGS] & KINDS) != HELD || (int) table[slot + MINUTES] != of.minute) continue;
      table[slot + FLAGS] = table[slot + FLAGS] & ~KINDS | JOINED;
      of.add((int) (table[slot + FLAGS] >>> 32), Minute.ORPHANS, 1);
    }
    of.held = new Longs();
  }

  /** The slot of a key, which is a keyed hash, or the empty one for it. */
  private int find(long key) {
    int at = (int) key & mask;
    while (table[at << 2] != key && table[at << 2] != 0) at = at + 1 & mask;
    return at << 2;
  }

  /** Drop the plays beyond the horizon; grow if the others take a quarter. */
  private void makeRoom(long watermark) {
    long[] old = table;
    int live = 0;
    for (int at = 0; at < old.length; at += 4) if (isLive(old, at, watermark)) live++;
    while (4 * live > mask) mask = 2 * mask + 1;
    table = new long[4 * (mask + 1)];
    used = 0;
    for (int at = 0; at < old.length; at += 4) if (isLive(old, at, watermark)) put(old, at);
  }

  private static boolean isLive(long[] from, int at, long watermark) {
    return from[at] != 0 && (from[at + TIMES] & TIME) + HORIZON_MS >= watermark;
  }

  private void put(long[] from, int at) {
    System.arraycopy(from, at, table, find(from[at]), 4);
    used++;
  }

  void save(Saved out, long watermark) {
    long[] chunk = new long[CHUNK];
    int size = 0;
    for (int at = 0; at < table.length; at += 4) {
      if (!isLive(table, at, watermark)) continue;
      System.arraycopy(table, at, chunk, size, 4);
      if ((size += 4) == CHUNK) {
        out.add(chunk);
        chunk = new long[CHUNK];
        size = 0;
      }
    }
    out.add(java.util.Arrays.copyOf(chunk, size));
  }

  void load(Object saved) {
    long[] some = (long[]) saved;
    for (int at = 0; at < some.length; at += 4) {
      if (2 * (used + 3) > mask) makeRoom(0);
      put(some, at);
    }
  }
}
