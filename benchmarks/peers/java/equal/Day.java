package peers.equal;

import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneId;

/** A calendar day: its listeners, and the counts of its minutes that are final and older than an hour. */
final class Day {
  private static final ZoneId ZONE = ZoneId.of("Europe/London");
  final Distinct reached = new Distinct();
  long[] counts = new long[0];

  /** Finds the day of minutes, and stores the borders of the last one. */
  static final class Calendar {
    private int from = 1, to;
    private long day;

    long of(int minute) {
      if (minute >= from && minute < to) return day;
      LocalDate date = LocalDate.ofInstant(Instant.ofEpochSecond(60L * minute), ZONE);
      from = (int) (date.atStartOfDay(ZONE).toEpochSecond() / 60);
      to = (int) (date.plusDays(1).atStartOfDay(ZONE).toEpochSecond() / 60);
      return day = date.toEpochDay();
    }
  }
}
