package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.Serializable;

/** One pixel, typed; ids are hashed while they are parsed. A POJO by Flink's rules. */
public class Event implements Serializable {
  private static final JsonFactory FACTORY = new JsonFactory();

  public int kind = -1;
  public long ts;
  public String placement;
  public long play;
  public long listener;
  public boolean consent;

  public Event() {}

  public static Event parse(byte[] bytes, int offset, int length) throws IOException {
    Event event = new Event();
    try (JsonParser parser = FACTORY.createParser(bytes, offset, length)) {
      parser.nextToken();
      String field;
      while ((field = parser.nextFieldName()) != null) {
        switch (field) {
          case "event": parser.nextToken(); event.kind = kind(parser.getText()); break;
          case "ts": event.ts = parser.nextLongValue(0); break;
          case "placement_id": parser.nextToken(); event.placement = parser.getText(); break;
          case "play_id": parser.nextToken(); event.play = hash(parser); break;
          case "listener_id": parser.nextToken(); event.listener = hash(parser); break;
          case "consent": event.consent = parser.nextToken() == JsonToken.VALUE_TRUE; break;
          default: parser.nextToken(); parser.skipChildren();
        }
      }
    }
    return event;
  }

  private static int kind(String name) {
    switch (name) {
      case "impression": return 0;
      case "start": return 1;
      case "firstQuartile": return 2;
      case "midpoint": return 3;
      case "thirdQuartile": return 4;
      case "complete": return 5;
      default: return -1;
    }
  }

  private static long hash(JsonParser parser) throws IOException {
    char[] text = parser.getTextCharacters();
    int from = parser.getTextOffset(), to = from + parser.getTextLength();
    long hash = 0xcbf29ce484222325L;
    for (int i = from; i < to; i++) hash = (hash ^ text[i]) * 0x100000001b3L;
    hash = (hash ^ hash >>> 32) * 0x9E3779B97F4A7C15L;
    return hash ^ hash >>> 29;
  }
}
