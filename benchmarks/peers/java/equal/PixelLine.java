package peers.equal;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.regex.Pattern;

/**
 * The fields of one line. A line of plain ASCII text without escapes is scanned eight bytes at a time; Jackson
 * reads every other one, and alone decides what is wrong with it.
 */
final class PixelLine {
  static final int EVENT_ID = 0, EVENT = 1, PLACEMENT = 2, CAMPAIGN = 3, PLATFORM = 4, STATION = 5, PLAY = 6;
  static final int LISTENER = 7, AGENT = 8, TRAFFIC = 9, TS = 10, RECEIVED = 11, CONSENT = 12, OTHER = 13;
  static final int GOOD = 0, MALFORMED = 1, INVALID = 2, UNKNOWN_EVENT = 3;
  static final int IMPRESSION = 0, START = 1, FIRST_QUARTILE = 2, COMPLETE = 5, CLICK = 6, ERROR = 7;
  private static final String[] NAMES = {
    "event_id", "event", "placement_id", "campaign_id", "platform", "station", "play_id", "listener_id",
    "user_agent", "invalid_traffic", "ts", "received_at", "consent",
  };
  private static final String[] EVENTS = {
    "impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "click", "error",
  };
  private static final long[] HEADS = heads(NAMES), TAILS = tails(NAMES);
  private static final long[] EVENT_HEADS = heads(EVENTS), EVENT_TAILS = tails(EVENTS);
  private static final int REQUIRED = 1 << EVENT_ID | 1 << EVENT | 1 << PLACEMENT | 1 << TS;
  private static final int MAX_ID = 128, MAX_BYTES = 64 * 1024;
  private static final long MAX_MS = 4_102_444_800_000L;
  private static final long ONES = 0x0101010101010101L, HIGHS = ONES << 7;
  private static final long TRUE = word("true"), FALSE = word("false"), NULL = word("null");
  private static final Pattern MACRO =
      Pattern.compile(
          "\\[[^\\[\\]]+\\]|%5B(?:(?!%5B|%5D).)+%5D|\\$\\{[^{}]+\\}|\\{[^{}]+\\}|@[^@]+@|-[12]",
          Pattern.CASE_INSENSITIVE | Pattern.DOTALL);
  private static final JsonFactory JSON = new JsonFactory();

  /** The bytes in which the texts are, with where each begins and its length. */
  byte[] text;
  final int[] begin = new int[NAMES.length + 1], length = new int[NAMES.length + 1];
  final long[] number = new long[NAMES.length + 1];
  /** A bit for each field that has a value, and the code of the event. */
  int given, code;
  private byte[] spare = new byte[256];

  boolean has(int field) {
    return (given >> field & 1) != 0;
  }

  String string(int field) {
    return has(field) ? new String(text, begin[field], length[field], StandardCharsets.UTF_8) : null;
  }

  /** Read a line; returns GOOD, or the reason why it is no pixel. Eight more bytes must follow it. */
  int read(byte[] bytes, int place, int end) {
    return scan(bytes, place, end) ? GOOD : parse(bytes, place, end);
  }

  private boolean scan(byte[] bytes, int place, int end) {
    text = bytes;
    given = 0;
    if (end - place > MAX_BYTES || bytes[place] != '{') return false;
    while (true) {
      if (bytes[++place] != '"') return false;
      int from = place + 1;
      place = closing(bytes, from);
      if (place < 0 || bytes[place + 1] != ':') return false;
      int field = field(bytes, from, place - from);
      if (field != OTHER && (given >> field & 1) != 0) return false;
      place += 2;
      byte first = bytes[place];
      if (first == '"') {
        from = place + 1;
        place = closing(bytes, from);
        if (place < 0) return false;
        if (field != OTHER) {
          if (field >= TS || place == from || place - from > MAX_ID || suspect(bytes[from])) return false;
          begin[field] = from;
          length[field] = place - from;
          given |= 1 << field;
        }
        place++;
      } else if (first >= '0' && first <= '9') {
        if (field < TS || field == CONSENT) return false;
        from = place;
        long value = 0;
        for (byte digit; (digit = bytes[place]) >= '0' && digit <= '9'; place++) value = value * 10 + digit - '0';
        if (place - from > 18 || first == '0' && place - from > 1) return false;
        number[field] = value;
        given |= 1 << field;
      } else {
        long word = (long) SipHash.LONGS.get(bytes, place);
        if ((word & 0xFFFFFFFFL) == TRUE && field >= CONSENT) {
          number[field] = 1;
          given |= 1 << field;
          place += 4;
        } else if ((word & 0xFFFFFFFFFFL) == FALSE && field >= CONSENT) {
          number[field] = 0;
          given |= 1 << field;
          place += 5;
        } else {
          return false;
        }
      }
      if (bytes[place] == '}') break;
      if (bytes[place] != ',') return false;
    }
    if (place + 1 != end || (given & REQUIRED) != REQUIRED || number[TS] >= MAX_MS) return false;
    if (has(RECEIVED) && number[RECEIVED] >= MAX_MS) return false;
    code = number(bytes, begin[EVENT], length[EVENT], EVENTS, EVENT_HEADS, EVENT_TAILS);
    return code < EVENTS.length;
  }

  /** Where the next quote is; -1 if an escape, a control character or one beyond ASCII comes before it. */
  private static int closing(byte[] bytes, int place) {
    while (true) {
      long word = (long) SipHash.LONGS.get(bytes, place);
      long quote = word ^ ONES * '"', slash = word ^ ONES * '\\';
      quote = quote - ONES & ~quote & HIGHS;
      slash = slash - ONES & ~slash & HIGHS;
      long odd = slash | word - ONES * ' ' & ~word & HIGHS | word & HIGHS;
      if ((quote | odd) != 0) {
        int at = Long.numberOfTrailingZeros(quote);
        return Long.numberOfTrailingZeros(odd) < at ? -1 : place + (at >>> 3);
      }
      place += 8;
    }
  }

  private static int field(byte[] bytes, int from, int length) {
    if (length < 2 || length > 15) return OTHER;
    return Math.min(OTHER, number(bytes, from, length, NAMES, HEADS, TAILS));
  }

  /** The place of a word in a list, by its first and last eight bytes; the list's length if it is in none. */
  private static int number(
      byte[] bytes, int from, int length, String[] names, long[] heads, long[] tails) {
    long head = (long) SipHash.LONGS.get(bytes, from);
    if (length < 8) head &= (1L << 8 * length) - 1;
    for (int i = 0; i < names.length; i++) {
      if (heads[i] == head && names[i].length() == length) {
        if (length <= 8 || tails[i] == (long) SipHash.LONGS.get(bytes, from + length - 8)) return i;
      }
    }
    return names.length;
  }

  private static boolean suspect(byte first) {
    return first == '[' || first == '%' || first == '$' || first == '{' || first == '@' || first == '-';
  }

  private int parse(byte[] bytes, int place, int end) {
    if (end - place > MAX_BYTES) return MALFORMED;
    try (JsonParser parser = JSON.createParser(bytes, place, end - place)) {
      return parse(parser);
    } catch (IOException unreadable) {
      return MALFORMED;
    }
  }

  private int parse(JsonParser parser) throws IOException {
    given = 0;
    text = spare;
    int used = 0;
    boolean wrong = false, wrongId = false;
    if (parser.nextToken() != JsonToken.START_OBJECT) return MALFORMED;
    String name;
    while ((name = parser.nextFieldName()) != null) {
      int field = Arrays.asList(NAMES).indexOf(name);
      JsonToken token = parser.nextToken();
      if (field < 0 || token == JsonToken.VALUE_NULL) {
        parser.skipChildren();
        continue;
      }
      if (field < TS) {
        if (token != JsonToken.VALUE_STRING) {
          wrongId = true;
          parser.skipChildren();
          continue;
        }
        String value = parser.getText();
        byte[] raw = value.getBytes(StandardCharsets.UTF_8);
        given &= ~(1 << field);
        if (absent(value)) continue;
        wrongId |= field <= LISTENER && value.length() > MAX_ID;
        if (used + raw.length + 8 > spare.length) spare = Arrays.copyOf(spare, 2 * (used + raw.length + 8));
        System.arraycopy(raw, 0, spare, used, raw.length);
        begin[field] = used;
        length[field] = raw.length;
        used += raw.length;
      } else if (field == CONSENT) {
        wrong |= !token.isBoolean();
        number[field] = token == JsonToken.VALUE_TRUE ? 1 : 0;
      } else if (token == JsonToken.VALUE_NUMBER_INT) {
        number[field] = parser.getLongValue();
      } else {
        number[field] = moment(parser.getValueAsString());
        parser.skipChildren();
      }
      if (field == TS || field == RECEIVED) wrong |= number[field] < 0 || number[field] >= MAX_MS;
      given |= 1 << field;
    }
    if (parser.nextToken() != null) return MALFORMED;
    text = spare;
    if (wrongId || !has(EVENT_ID) || !has(EVENT) || !has(PLACEMENT)) return INVALID;
    code = Arrays.asList(EVENTS).indexOf(string(EVENT));
    if (code < 0) return UNKNOWN_EVENT;
    return wrong || !has(TS) ? INVALID : GOOD;
  }

  private static long moment(String text) {
    try {
      return text == null ? -1 : OffsetDateTime.parse(text).toInstant().toEpochMilli();
    } catch (DateTimeException wrong) {
      return -1;
    }
  }

  private static boolean absent(String text) {
    return text.isEmpty() || MACRO.matcher(text).matches();
  }

  private static long word(String text) {
    byte[] bytes = Arrays.copyOf(text.getBytes(StandardCharsets.US_ASCII), 8);
    return (long) SipHash.LONGS.get(bytes, 0);
  }

  private static long[] heads(String[] names) {
    return Arrays.stream(names).mapToLong(name -> word(name.substring(0, Math.min(8, name.length())))).toArray();
  }

  private static long[] tails(String[] names) {
    return Arrays.stream(names).mapToLong(name -> word(name.substring(Math.max(0, name.length() - 8)))).toArray();
  }
}
