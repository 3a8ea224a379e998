package peers.equal;

import java.util.ArrayList;
import java.util.List;

/** Rows as they are published: a table of numbers, and the texts of each row. */
final class Flush {
  static final long NIL = Long.MIN_VALUE;
  static final String[] SCOPES = {"placement", "campaign", "platform", "station"};
  static final String[] LABELS = {null, "campaign_id", "platform", "station"};
  static final String[] WINDOWS = {"5m", "1h", "1d", "flight"};
  private static final String[] COUNTS = {
    "impressions", "starts", "first_quartiles", "midpoints", "third_quartiles", "completes", "clicks", "errors",
    "orphans", "repaired", "unlinked_starts", "unlinked_first_quartiles", "unlinked_midpoints",
    "unlinked_third_quartiles", "unlinked_completes",
  };
  /** Of a platform: plays that got so far, or have a listener or a play id. */
  private static final String[] SHARES = {
    "start_share", "first_quartile_share", "midpoint_share", "third_quartile_share", "complete_share",
    "listener_share", "play_id_share",
  };
  private static final List<String> NAMES = new ArrayList<>();
  private static final List<Boolean> RATES = new ArrayList<>();

  static {
    for (String name : List.of("as_of_ms", "final_through_ms", "reach_as_of_ms", "flight.since_ms")) {
      field(name, false);
    }
    for (String name : List.of("pixels", "consented", "repeated", "too_late", "invalid_traffic")) {
      field("flight." + name, false);
    }
    field("flight.consent_coverage", true);
    for (int window = 0; window < WINDOWS.length; window++) {
      for (String name : COUNTS) field(WINDOWS[window] + "." + name, false);
      field(WINDOWS[window] + ".completion_rate", true);
      field(WINDOWS[window] + ".completions_per_impression", true);
      field(WINDOWS[window] + ".reach", false);
      field(WINDOWS[window] + ".frequency", true);
      field(WINDOWS[window] + (window < 2 ? ".mature_completion_rate" : ".unlinked_completion_rate"), true);
      if (window == 1) field("1h.unlinked_completion_rate", true);
      if (window < 2) continue;
      field(WINDOWS[window] + ".impressions_vast_impression", false);
      for (String name : SHARES) field(WINDOWS[window] + "." + name, true);
    }
    field("flight.delay_p50_seconds", true);
  }

  /** Names of the columns, and which of them are rates in millionths. */
  static final String[] FIELDS = NAMES.toArray(new String[0]);
  static final boolean[] IS_RATE = new boolean[FIELDS.length];

  static {
    for (int i = 0; i < FIELDS.length; i++) IS_RATE[i] = RATES.get(i);
  }

  private static void field(String name, boolean isRate) {
    NAMES.add(name);
    RATES.add(isRate);
  }

  /** A row; its reach is of listeners if one is known, and it has a basis if it had an impression. */
  record Row(
      int scope, String name, long latest, long[] numbers, String[] labels, boolean isKnown, boolean isImpressed) {}

  final List<Row> rows = new ArrayList<>();
  long asOf, position, watermark, number;
  /** The account: lines by verdict of `PixelLine`; of pixels those accepted (some of them invalid), and the others. */
  long[] lines;
  long accepted, repeated, tooLate, invalid;
}
