package peers.equal;

import com.hazelcast.jet.core.AbstractProcessor;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import peers.Lines;

/**
 * The source: lines of a file become blocks of pixels with event times and watermarks. Its place in the file,
 * its time and the labels that it has numbered are in each snapshot.
 */
final class LogReader extends AbstractProcessor {
  private static final long DISORDER_MS = 10_000, MINUTE_MS = 60_000, DAY_MS = 86_400_000;
  private static final int SCOPES = Counter.SCOPES, SENT = 8, LOST = 2;
  private static final Pattern BOT = Pattern.compile("bot\\b|bot/|crawler|spider", Pattern.CASE_INSENSITIVE);
  private static final Pattern PODCAST_APP =
      Pattern.compile(
          "AntennaPod|AppleCoreMedia|Podcasts?/|Pocket ?Casts|Overcast|Castro|Castbox|Podimo|Podbean|Podkicker"
              + "|Podcast ?Addict|Spotify/|Stitcher|Deezer|TuneIn|iHeartRadio|Audible|Downcast|Player ?FM"
              + "|RadioPublic|BBC ?Sounds|GlobalPlayer",
          Pattern.CASE_INSENSITIVE);
  /** A key as a deployment has one of its own: nobody who sends pixels may find texts of one hash. */
  private static final long LOW = 0x7369787465656E20L, HIGH = 0x7365637265742062L;

  private final String log;
  private final boolean fails;
  private final PixelLine line = new PixelLine();
  private final byte[] scratch = new byte[SCOPES * 520];
  private final List<String[]> labels = new ArrayList<>();
  private long[] known = new long[2048], playLow = new long[1024], playHigh = new long[1024];
  private int[] numbers = new int[2048];
  private int announced, sentLabels;
  private Lines lines;
  private Block pending;
  private long greatest, candidate;
  /** The place in the log behind the last block that was sent, and the greatest time and the candidate then. */
  private long[] sent = new long[3];
  private int blocks;
  private boolean ended, isSaved;

  /** With `fails` the first one fails once, `LOST` blocks after the place that a snapshot has. */
  LogReader(String log, boolean fails) {
    this.log = log;
    this.fails = fails;
  }

  /** It reads a file, which Jet wants off its shared threads. */
  @Override
  public boolean isCooperative() {
    return false;
  }

  @Override
  public boolean complete() {
    while (true) {
      if (fails && Equal.failures.get() == 0 && blocks == SENT && !isSaved) return false;
      if (pending == null) {
        if (ended) return true;
        pending = next();
      }
      if (!tryEmit(pending)) return false;
      sent[0] = pending.position;
      sent[1] = greatest;
      sent[2] = candidate;
      sentLabels = announced;
      pending = null;
      blocks++;
      if (fails && Equal.failures.get() == 0) return fail();
    }
  }

  /** Wait for a snapshot after the first blocks, and fail some blocks later. */
  private boolean fail() {
    if (isSaved && blocks >= SENT + LOST) {
      Equal.failures.incrementAndGet();
      throw new IllegalStateException("a failure for the test");
    }
    return false;
  }

  @Override
  public boolean snapshotCommitFinish(boolean isGood) {
    isSaved |= isGood && blocks >= SENT;
    return true;
  }

  /** A block that is read and not sent is no part of it, and will be read again. */
  @Override
  public boolean saveToSnapshot() {
    String[] names = labels.subList(0, sentLabels).stream().flatMap(Arrays::stream).toArray(String[]::new);
    return tryEmitToSnapshot("source", new Object[] {sent, names});
  }

  @Override
  protected void restoreFromSnapshot(Object key, Object value) {
    Object[] saved = (Object[]) value;
    sent = (long[]) saved[0];
    Equal.restored.set(sent[0]);
    greatest = sent[1];
    candidate = sent[2];
    String[] names = (String[]) saved[1];
    for (int i = 0; i < names.length; i += SCOPES) number(Arrays.copyOfRange(names, i, i + SCOPES));
    announced = sentLabels = labels.size();
  }

  @Override
  public void close() throws IOException {
    if (lines != null) lines.close();
  }

  private Block next() {
    Block block = new Block();
    try {
      if (lines == null) {
        lines = new Lines(log);
        lines.seek(sent[0]);
      }
      while (block.count < Block.SIZE) {
        if (!lines.next()) {
          ended = true;
          break;
        }
        int verdict = line.read(lines.buffer, lines.offset, lines.offset + lines.length);
        block.lines[verdict]++;
        if (verdict == PixelLine.GOOD) take(block);
      }
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
    for (; announced < labels.size(); announced++) block.fresh.add(labels.get(announced));
    block.position = lines.position;
    block.greatest = greatest;
    return block;
  }

  private void take(Block block) {
    int i = block.count++, info = line.code;
    int number = number();
    boolean linked = line.has(PixelLine.PLAY);
    int identity = linked ? PixelLine.PLAY : PixelLine.EVENT_ID;
    block.play[i] =
        SipHash.strong(
            playLow[number], linked ? playHigh[number] : ~playHigh[number],
            line.text, line.begin[identity], line.length[identity]);
    if (linked) info |= Block.LINKED;
    if (line.has(PixelLine.TRAFFIC) || line.has(PixelLine.AGENT) && isBot()) info |= Block.TRAFFIC;
    long listener = 0;
    if (line.has(PixelLine.CONSENT) && line.number[PixelLine.CONSENT] == 1) {
      info |= Block.CONSENTED;
      if (line.code <= PixelLine.START && line.has(PixelLine.LISTENER)) {
        listener =
            SipHash.strong(
                HIGH, LOW, line.text, line.begin[PixelLine.LISTENER], line.length[PixelLine.LISTENER]);
      }
    }
    long ts = line.number[PixelLine.TS];
    if (line.has(PixelLine.RECEIVED)) {
      long received = Math.max(1, line.number[PixelLine.RECEIVED]);
      ts = Math.max(Math.max(Math.min(ts, received + MINUTE_MS), received - DAY_MS), 0);
      info |= Totals.delay(received - ts) << Block.DELAY_SHIFT;
    }
    // A jump of more than a day counts only when the next pixel is within a day of it, or later.
    if (candidate > 0) {
      if (ts >= candidate - DAY_MS) greatest = Math.max(greatest, candidate);
      candidate = 0;
    }
    if (ts > greatest + DAY_MS) candidate = ts;
    else greatest = Math.max(greatest, ts);
    block.ts[i] = ts;
    block.watermark[i] = Math.max(greatest - DISORDER_MS, 0);
    block.listener[i] = listener;
    block.labels[i] = number;
    block.info[i] = info;
  }

  private boolean isBot() {
    String agent = line.string(PixelLine.AGENT);
    return BOT.matcher(agent).find() && !PODCAST_APP.matcher(agent).find();
  }

  /** The number of the line's labels. */
  private int number() {
    int used = 0;
    for (int field = PixelLine.PLACEMENT; field < PixelLine.PLACEMENT + SCOPES; field++) {
      int length = line.has(field) ? line.length[field] : 0;
      scratch[used++] = (byte) length;
      scratch[used++] = (byte) (length >> 8);
      if (length > 0) System.arraycopy(line.text, line.begin[field], scratch, used, length);
      used += length;
    }
    int slot = slot(SipHash.fast(LOW, HIGH, scratch, 0, used));
    if (known[slot] != 0) return numbers[slot];
    String[] names = new String[SCOPES];
    for (int scope = 0; scope < SCOPES; scope++) names[scope] = line.string(PixelLine.PLACEMENT + scope);
    return number(names);
  }

  /** The number of labels, which are new. */
  private int number(String[] names) {
    int number = labels.size(), used = 0;
    labels.add(names);
    for (String name : names) {
      byte[] raw = name == null ? new byte[0] : name.getBytes(StandardCharsets.UTF_8);
      scratch[used++] = (byte) raw.length;
      scratch[used++] = (byte) (raw.length >> 8);
      System.arraycopy(raw, 0, scratch, used, raw.length);
      used += raw.length;
    }
    if (2 * labels.size() > known.length) {
      long[] before = known;
      int[] old = numbers;
      known = new long[2 * before.length];
      numbers = new int[2 * before.length];
      for (int i = 0; i < before.length; i++) {
        if (before[i] == 0) continue;
        int slot = slot(before[i]);
        known[slot] = before[i];
        numbers[slot] = old[i];
      }
    }
    long fingerprint = SipHash.fast(LOW, HIGH, scratch, 0, used);
    int slot = slot(fingerprint);
    known[slot] = fingerprint;
    numbers[slot] = number;
    if (number == playLow.length) {
      playLow = Arrays.copyOf(playLow, 2 * number);
      playHigh = Arrays.copyOf(playHigh, 2 * number);
    }
    int length = names[0].getBytes(StandardCharsets.UTF_8).length;
    playLow[number] = SipHash.strong(LOW, HIGH, scratch, 2, length);
    playHigh[number] = SipHash.strong(HIGH, ~LOW, scratch, 2, length);
    return number;
  }

  private int slot(long fingerprint) {
    int mask = known.length - 1, slot = (int) fingerprint & mask;
    while (known[slot] != 0 && known[slot] != fingerprint) slot = slot + 1 & mask;
    return slot;
  }
}
