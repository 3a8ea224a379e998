package peers.equal;

import com.hazelcast.jet.core.AbstractProcessor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import peers.Main;

/**
 * Counts the pixels, and sends the rows that changed at each publication. A pixel adds to one cell of its labels
 * and minute; windows and roll-ups are summed when they are published.
 */
final class Counter extends AbstractProcessor {
  static final int SCOPES = 4;
  /** A replay publishes after its first flush interval, then every 20 s, and at its end, as ours does. */
  private static final long FIRST_NANOS = TimeUnit.MILLISECONDS.toNanos(500);
  private static final long EVERY_NANOS = TimeUnit.SECONDS.toNanos(20);
  private static final long MATURE_MS = 90_000;
  private static final int PLATFORM = 2, COLUMNS = Minute.COLUMNS, FLIGHT = 3, WINDOWS = Flush.WINDOWS.length;

  private final Minutes minutes = new Minutes();
  private final Plays plays = new Plays(this, minutes);
  private final Rolling rolling = new Rolling();
  private final Distinct reached = new Distinct();
  private final TreeMap<Long, Day> days = new TreeMap<>();
  private final Day.Calendar calendar = new Day.Calendar();
  private final List<String[]> labels = new ArrayList<>();
  private final List<Map<String, Integer>> rowOf = new ArrayList<>();
  private final List<String> names = new ArrayList<>();
  private final List<Integer> scopes = new ArrayList<>();
  private Totals[] totals = new Totals[64];
  private int[] rows = new int[SCOPES << 6], labelsOf = new int[64];
  private long[] retired = new long[0];
  private final long[] lines = new long[4];
  private long accepted, watermark, greatest, position, flushes, publishAt;
  private int firstOpen, published = -1;
  private Day today;
  private long todayOf = Long.MIN_VALUE;
  private Flush pending;
  private Saved saved;
  /** Totals of a snapshot, which may come before the labels that they are of. */
  private long[] restoredTotals = new long[0];

  Counter() {
    for (int scope = 0; scope < SCOPES; scope++) rowOf.add(new HashMap<>());
    publishAt = System.nanoTime() + FIRST_NANOS;
  }

  Totals totals(int labels) {
    return totals[labels];
  }

  @Override
  protected boolean tryProcess(int ordinal, Object item) {
    if (!isSent()) return false;
    Block block = (Block) item;
    for (String[] fresh : block.fresh) number(fresh);
    for (int verdict = 0; verdict < lines.length; verdict++) lines[verdict] += block.lines[verdict];
    plays.apply(block);
    position = block.position;
    greatest = block.greatest;
    if (block.count > 0) watermark = Math.max(watermark, block.watermark[block.count - 1]);
    endMinutes((int) ((watermark - Plays.LATENESS_MS) / 60_000));
    long now = System.nanoTime();
    if (now >= publishAt) {
      publishAt = now + EVERY_NANOS;
      pending = publish(watermark);
      isSent();
    }
    return true;
  }

  @Override
  public boolean complete() {
    if (published != Integer.MAX_VALUE) {
      if (!isSent()) return false;
      watermark = Math.max(watermark, greatest);
      int last = minutes.live.isEmpty() ? 0 : minutes.live.lastKey();
      endMinutes(Math.max((int) (watermark / 60_000), last) + 1);
      pending = publish(watermark);
      published = Integer.MAX_VALUE;
    }
    return isSent();
  }

  private boolean isSent() {
    if (pending != null && !tryEmit(pending)) return false;
    pending = null;
    return true;
  }

  private void number(String[] of) {
    int number = labels.size();
    labels.add(of);
    if (number == totals.length) {
      totals = Arrays.copyOf(totals, 2 * number);
      rows = Arrays.copyOf(rows, 2 * rows.length);
    }
    totals[number] = new Totals();
    for (int scope = 0; scope < SCOPES; scope++) rows[number * SCOPES + scope] = row(scope, of[scope]);
    labelsOf[rows[number * SCOPES]]++;
  }

  private int row(int scope, String name) {
    if (name == null) return -1;
    Integer row = rowOf.get(scope).get(name);
    if (row != null) return row;
    int fresh = names.size();
    rowOf.get(scope).put(name, fresh);
    names.add(name);
    scopes.add(scope);
    if (fresh == labelsOf.length) labelsOf = Arrays.copyOf(labelsOf, 2 * fresh);
    return fresh;
  }

  /** Add a listener to the rows of labels in a minute. */
  void reach(int labels, int minute, long who) {
    int now = (int) (watermark / 60_000), placement = rows[labels * SCOPES];
    long day = calendar.of(minute);
    Minute cells = minutes.of(minute);
    for (int scope = 0; scope < SCOPES; scope++) {
      int row = rows[labels * SCOPES + scope];
      if (row < 0) continue;
      int found = rolling.add(row, minute, who, now);
      if (found == Rolling.SAME) {
        // A placement that always had these labels: its other rows have this listener in this minute, too.
        if (row == placement && labelsOf[row] == 1) return;
        continue;
      }
      cells.hear(row);
      if (found == Rolling.KNOWN && calendar.of(rolling.before) == day) continue;
      day(day).reached.add(row, who);
      reached.add(row, who);
    }
  }

  private Day day(long of) {
    if (of != todayOf) {
      todayOf = of;
      today = days.computeIfAbsent(of, each -> new Day());
    }
    return today;
  }

  /** Minutes before `open` become final; those that are also older than an hour become a sum. */
  private void endMinutes(int open) {
    if (open <= firstOpen) return;
    firstOpen = open;
    int hour = (int) (watermark / 60_000) - Rolling.WIDTHS[1];
    for (Minute one : new ArrayList<>(minutes.live.headMap(open).values())) {
      if (!one.isFinal) {
        one.isFinal = true;
        plays.orphans(one);
        Main.ROWS.add(new FinalMinute(labels, one.minute, one.counts.clone()));
      }
      if (one.minute <= hour) {
        retired = added(retired, one.counts);
        Day day = days.computeIfAbsent(calendar.of(one.minute), each -> new Day());
        day.counts = added(day.counts, one.counts);
        minutes.drop(one);
      }
    }
    long day = calendar.of((int) (watermark / 60_000));
    while (!days.isEmpty() && days.firstKey() < day) days.pollFirstEntry();
    todayOf = Long.MIN_VALUE;
  }

  private static long[] added(long[] sums, int[] counts) {
    if (sums.length < counts.length) sums = Arrays.copyOf(sums, counts.length);
    for (int i = 0; i < counts.length; i++) sums[i] += counts[i];
    return sums;
  }

  private Flush publish(long asOf) {
    int now = (int) (asOf / 60_000), n = names.size();
    long day = calendar.of(now);
    int matureBefore = (int) Math.floorDiv(asOf - MATURE_MS, 60_000);
    long[] sums = new long[n * WINDOWS * COLUMNS], mature = new long[n * 4], of = new long[WINDOWS * COLUMNS];
    long[] ofDay = days.containsKey(day) ? days.get(day).counts : new long[0];
    boolean[] impressed = new boolean[n];
    long[][] delays = new long[n][];
    long[] flown = new long[n * 5], latest = new long[n], first = new long[n];
    Arrays.fill(first, Long.MAX_VALUE);
    String[][] texts = new String[n][];
    long[][] times = new long[n][];
    Flush flush = new Flush();
    for (int number = 0; number < labels.size(); number++) {
      int begin = number * COLUMNS;
      Arrays.fill(of, 0);
      long[] grown = new long[4];
      for (Minute one : minutes.live.values()) {
        if (begin >= one.counts.length) continue;
        boolean isToday = calendar.of(one.minute) == day, isPast = one.minute <= now;
        boolean isLast5 = isPast && one.minute > now - 5, isLast60 = isPast && one.minute > now - 60;
        for (int column = 0; column < COLUMNS; column++) {
          int count = one.counts[begin + column];
          if (count == 0) continue;
          if (isLast5) of[column] += count;
          if (isLast60) of[COLUMNS + column] += count;
          // A milestone that comes after all takes a repaired one back: sums that never fall wait for the end.
          if (column == Minute.REPAIRED && !one.isFinal) continue;
          if (isToday) of[2 * COLUMNS + column] += count;
          of[FLIGHT * COLUMNS + column] += count;
        }
        if (one.minute >= matureBefore) continue;
        for (int width = 0; width < 2; width++) {
          if (width == 0 ? !isLast5 : !isLast60) continue;
          grown[2 * width] += one.counts[begin + PixelLine.START];
          grown[2 * width + 1] += one.counts[begin + PixelLine.COMPLETE];
        }
      }
      for (int column = 0; column < COLUMNS; column++) {
        if (begin + column < ofDay.length) of[2 * COLUMNS + column] += ofDay[begin + column];
        if (begin + column < retired.length) of[FLIGHT * COLUMNS + column] += retired[begin + column];
      }
      Totals one = totals[number];
      flush.repeated += one.repeated;
      flush.tooLate += one.tooLate;
      flush.invalid += one.invalid;
      flush.accepted += one.pixels + one.invalid;
      for (int scope = 0; scope < SCOPES; scope++) {
        int row = rows[number * SCOPES + scope];
        if (row < 0) continue;
        for (int i = 0; i < of.length; i++) sums[row * of.length + i] += of[i];
        for (int i = 0; i < 4; i++) mature[row * 4 + i] += grown[i];
        long[] counts = {one.pixels, one.consented, one.repeated, one.tooLate, one.invalid};
        for (int i = 0; i < counts.length; i++) flown[row * 5 + i] += counts[i];
        latest[row] = Math.max(latest[row], one.latest);
        first[row] = Math.min(first[row], one.first);
        impressed[row] |= one.impressed;
        if (scope != PLATFORM) continue;
        if (delays[row] == null) delays[row] = new long[one.delays.length];
        for (int i = 0; i < one.delays.length; i++) delays[row][i] += one.delays[i];
      }
      note(texts, times, rows[number * SCOPES], labels.get(number), one.latest);
    }
    long[][] rolled = rolling.counts(now, n, minutes);
    Distinct ofToday = day(day).reached;
    for (int row = 0; row < n; row++) {
      long[] reach = {rolled[0][row], rolled[1][row], ofToday.count(row), reached.count(row)};
      boolean isKnown = reach[0] + reach[1] + reach[2] + reach[3] > 0, isUnknown = !isKnown && flown[row * 5 + 1] > 0;
      long[] numbers = new long[Flush.FIELDS.length];
      int at = 0;
      numbers[at++] = asOf;
      numbers[at++] = firstOpen * 60_000L;
      numbers[at++] = asOf;
      numbers[at++] = first[row] == Long.MAX_VALUE ? Flush.NIL : first[row];
      for (int i = 0; i < 5; i++) numbers[at++] = flown[row * 5 + i];
      numbers[at++] = Rates.of(flown[row * 5 + 1], flown[row * 5]);
      for (int window = 0; window < WINDOWS; window++) {
        int begin = (row * WINDOWS + window) * COLUMNS;
        for (int column = 0; column < Minute.REACHED; column++) numbers[at++] = sums[begin + column];
        long completes = sums[begin + PixelLine.COMPLETE];
        numbers[at++] = Rates.of(completes, sums[begin + PixelLine.START]);
        numbers[at++] = Rates.of(completes, sums[begin + PixelLine.IMPRESSION]);
        numbers[at++] = isUnknown ? Flush.NIL : reach[window];
        numbers[at++] = Rates.of(Math.max(sums[begin + Minute.REACHED], reach[window]), reach[window]);
        if (window < 2) numbers[at++] = Rates.of(mature[row * 4 + 2 * window + 1], mature[row * 4 + 2 * window]);
        int unlinked = begin + Minute.UNLINKED;
        if (window > 0) {
          numbers[at++] = Rates.of(sums[unlinked + PixelLine.COMPLETE], sums[unlinked + PixelLine.START]);
        }
        if (window < 2) continue;
        long impressions = sums[begin + PixelLine.IMPRESSION];
        numbers[at++] = impressions == 0 ? Flush.NIL : impressions;
        at = shares(scopes.get(row) == PLATFORM, sums, begin, numbers, at);
      }
      numbers[at] = delays[row] == null ? Flush.NIL : Totals.median(delays[row]);
      flush.rows.add(
          new Flush.Row(
              scopes.get(row), names.get(row), latest[row], numbers, texts[row], isKnown, impressed[row]));
    }
    flush.asOf = asOf;
    flush.position = position;
    flush.watermark = watermark;
    flush.number = ++flushes;
    flush.lines = lines.clone();
    return flush;
  }

  /** The shares of a platform's plays, which are its impressions, or its starts where these are more. */
  private static int shares(boolean isPlatform, long[] sums, int begin, long[] numbers, int at) {
    int end = at + 7, unlinked = begin + Minute.UNLINKED + PixelLine.START;
    Arrays.fill(numbers, at, end, Flush.NIL);
    if (!isPlatform) return end;
    long impressions = sums[begin + PixelLine.IMPRESSION], linked = sums[begin + PixelLine.START];
    long starts = linked + sums[unlinked], plays = Math.max(impressions, starts);
    for (int code = PixelLine.START; code <= PixelLine.COMPLETE; code++) {
      long reached = sums[begin + code] + sums[begin + Minute.UNLINKED + code];
      numbers[at++] = Rates.of(Math.min(reached, plays), plays);
    }
    boolean isUnknown = plays > impressions && sums[unlinked] > 0;
    numbers[at++] = isUnknown ? Flush.NIL : Rates.of(Math.min(sums[begin + Minute.REACHED], plays), plays);
    numbers[at] = Rates.of(linked, starts);
    return end;
  }

  /** A placement has the value of each label with the latest event time; of two with the same the greater. */
  private static void note(String[][] texts, long[][] times, int placement, String[] labels, long ts) {
    if (ts == 0) return;
    if (texts[placement] == null) {
      texts[placement] = labels.clone();
      times[placement] = new long[SCOPES];
      Arrays.fill(times[placement], ts);
      return;
    }
    for (int scope = 1; scope < SCOPES; scope++) {
      String held = texts[placement][scope], name = labels[scope];
      long at = times[placement][scope];
      if (name == null || held != null && (ts < at || ts == at && name.compareTo(held) <= 0)) continue;
      texts[placement][scope] = name;
      times[placement][scope] = ts;
    }
  }

  @Override
  public boolean saveToSnapshot() {
    if (saved == null) saved = state();
    for (; !saved.parts.isEmpty(); saved.parts.removeFirst()) {
      if (!tryEmitToSnapshot(saved.parts.getFirst().getKey(), saved.parts.getFirst().getValue())) return false;
    }
    saved = null;
    return true;
  }

  private Saved state() {
    Saved out = new Saved();
    out.begin("labels").add(labels.stream().flatMap(Arrays::stream).toArray(String[]::new));
    plays.save(out.begin("plays"), watermark);
    rolling.save(out.begin("rolling"), (int) (watermark / 60_000));
    reached.save(out.begin("reached"));
    for (Map.Entry<Long, Day> day : days.entrySet()) {
      out.begin("day " + day.getKey()).add(day.getValue().counts.clone());
      day.getValue().reached.save(out.begin("reach of " + day.getKey()));
    }
    out.begin("minutes");
    for (Minute one : minutes.live.values()) out.add(one.saved());
    long[] counted = new long[Totals.SAVED * labels.size()];
    for (int i = 0; i < labels.size(); i++) totals[i].save(counted, Totals.SAVED * i);
    out.begin("totals").add(counted);
    out.begin("retired").add(retired.clone());
    out.begin("lines").add(lines.clone());
    out.begin("place").add(new long[] {watermark, greatest, position, flushes, firstOpen});
    return out;
  }

  @Override
  protected void restoreFromSnapshot(Object key, Object value) {
    String name = Saved.name(key);
    switch (name) {
      case "labels" -> {
        String[] flat = (String[]) value;
        for (int i = 0; i < flat.length; i += SCOPES) number(Arrays.copyOfRange(flat, i, i + SCOPES));
      }
      case "plays" -> plays.load(value);
      case "rolling" -> rolling.load(value);
      case "reached" -> reached.load(value);
      case "minutes" -> {
        Minute one = Minute.loaded(value);
        minutes.live.put(one.minute, one);
      }
      case "totals" -> restoredTotals = (long[]) value;
      case "retired" -> retired = (long[]) value;
      case "lines" -> System.arraycopy((long[]) value, 0, lines, 0, lines.length);
      case "place" -> {
        long[] place = (long[]) value;
        watermark = place[0];
        greatest = place[1];
        position = place[2];
        flushes = place[3];
        firstOpen = (int) place[4];
      }
      default -> {
        Day day = days.computeIfAbsent(Long.parseLong(name.replaceAll("\\D", "")), each -> new Day());
        if (name.startsWith("day ")) day.counts = (long[]) value;
        else day.reached.load(value);
      }
    }
  }

  @Override
  public boolean finishSnapshotRestore() {
    for (int i = 0; i < labels.size(); i++) totals[i] = Totals.loaded(restoredTotals, Totals.SAVED * i);
    return true;
  }

  /** A minute that is final: a line for each placement's labels, as `Main` writes it. */
  record FinalMinute(List<String[]> labels, int minute, int[] counts) {
    @Override
    public String toString() {
      StringBuilder lines = new StringBuilder();
      for (int number = 0; number < labels.size() && number * COLUMNS < counts.length; number++) {
        int begin = number * COLUMNS;
        boolean isEmpty = true;
        for (int column = 0; column < COLUMNS; column++) isEmpty &= counts[begin + column] == 0;
        if (isEmpty) continue;
        if (lines.length() > 0) lines.append('\n');
        lines.append(labels.get(number)[0]).append(',').append(minute);
        for (int column = 0; column < Minute.REACHED; column++) lines.append(',').append(counts[begin + column]);
      }
      return lines.toString();
    }
  }
}
