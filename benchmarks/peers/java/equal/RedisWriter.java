package peers.equal;

import com.hazelcast.jet.core.AbstractProcessor;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.Protocol.Command;

/**
 * The sink: a hash a row, absolute values, one pipeline a flush. Positions are written before the rows. Values are
 * absolute, so that a flush that is written again after a restart changes nothing.
 */
final class RedisWriter extends AbstractProcessor {
  private static final byte[][] FIELDS = Arrays.stream(Flush.FIELDS).map(RedisWriter::bytes).toArray(byte[][]::new);
  private static final byte[][] LABELS =
      Arrays.stream(Flush.LABELS).map(name -> bytes(String.valueOf(name))).toArray(byte[][]::new);
  private static final byte[] UNIT = bytes("reach_unit"), LISTENER = bytes("listener");
  private static final byte[] BASIS = bytes("impression_basis"), TAG = bytes("vast_impression");
  private static final byte[] STAY_MS = bytes("172800000");
  private final String url, namespace;
  private Jedis redis;

  RedisWriter(String url, String namespace) {
    this.url = url;
    this.namespace = namespace;
  }

  /** It waits for a socket. */
  @Override
  public boolean isCooperative() {
    return false;
  }

  @Override
  protected void init(Context context) {
    redis = new Jedis(URI.create(url));
  }

  @Override
  public void close() {
    if (redis != null) redis.close();
  }

  @Override
  protected boolean tryProcess(int ordinal, Object item) {
    Flush flush = (Flush) item;
    Pipeline pipeline = redis.pipelined();
    put(pipeline, namespace + ":positions", "position", flush.position, "watermark_ms", flush.asOf);
    List<byte[]> given = new ArrayList<>(), absent = new ArrayList<>();
    for (Flush.Row row : flush.rows) {
      byte[] key = bytes(namespace + ":" + Flush.SCOPES[row.scope()] + ":{" + row.name() + "}");
      given.clear();
      absent.clear();
      given.add(key);
      absent.add(key);
      for (int field = 0; field < FIELDS.length; field++) {
        long number = row.numbers()[field];
        if (number == Flush.NIL) {
          absent.add(FIELDS[field]);
          continue;
        }
        given.add(FIELDS[field]);
        given.add(bytes(Flush.IS_RATE[field] ? Rates.text(number) : Long.toString(number)));
      }
      for (int scope = 1; row.labels() != null && scope < LABELS.length; scope++) {
        if (row.labels()[scope] == null) continue;
        given.add(LABELS[scope]);
        given.add(bytes(row.labels()[scope]));
      }
      if (row.isKnown()) {
        given.add(UNIT);
        given.add(LISTENER);
      }
      if (row.isImpressed()) {
        given.add(BASIS);
        given.add(TAG);
      }
      pipeline.sendCommand(Command.HSET, given.toArray(new byte[0][]));
      if (absent.size() > 1) pipeline.sendCommand(Command.HDEL, absent.toArray(new byte[0][]));
      pipeline.sendCommand(Command.PEXPIRE, key, STAY_MS);
    }
    for (int scope = 0; scope < Flush.SCOPES.length; scope++) {
      given.clear();
      given.add(bytes(namespace + ":index:" + Flush.SCOPES[scope]));
      for (Flush.Row row : flush.rows) {
        if (row.scope() != scope) continue;
        given.add(bytes(Long.toString(row.latest())));
        given.add(bytes(row.name()));
      }
      if (given.size() > 1) pipeline.sendCommand(Command.ZADD, given.toArray(new byte[0][]));
    }
    put(
        pipeline, namespace + ":partition:{log}",
        "received", Arrays.stream(flush.lines).sum(), "accepted", flush.accepted, "repeated", flush.repeated,
        "invalid_traffic", flush.invalid, "rejected.too_late", flush.tooLate,
        "rejected.malformed", flush.lines[PixelLine.MALFORMED], "rejected.invalid", flush.lines[PixelLine.INVALID],
        "rejected.unknown_event", flush.lines[PixelLine.UNKNOWN_EVENT], "position", flush.position);
    put(pipeline, namespace + ":meta", "watermark_ms", flush.asOf, "flush", flush.number);
    pipeline.publish(namespace + ":updates", "{\"flush\":" + flush.number + ",\"as_of_ms\":" + flush.asOf + "}");
    for (Object answer : pipeline.syncAndReturnAll()) {
      if (answer instanceof RuntimeException error) throw error;
    }
    return true;
  }

  private static void put(Pipeline pipeline, String key, Object... fields) {
    byte[][] arguments = new byte[1 + fields.length][];
    arguments[0] = bytes(key);
    for (int i = 0; i < fields.length; i++) arguments[i + 1] = bytes(String.valueOf(fields[i]));
    pipeline.sendCommand(Command.HSET, arguments);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
