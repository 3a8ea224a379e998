package peers;

import java.io.Closeable;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Lines of a file as slices of one large buffer; `position` is where the next one begins. `SPARE` more bytes
 * follow the last line, so that readers may take eight bytes at a time.
 */
public class Lines implements Closeable {
  public static final int SPARE = 16;
  private static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
  private static final long ONES = 0x0101010101010101L;
  public byte[] buffer = new byte[(1 << 20) + SPARE];
  public int offset, length;
  public long position;
  private final FileInputStream in;
  private int from, to;
  private boolean ended;

  public Lines(String path) {
    try {
      in = new FileInputStream(path);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public void seek(long position) throws IOException {
    in.getChannel().position(position);
    this.position = position;
    from = to = 0;
  }

  public boolean next() throws IOException {
    int i = from;
    while (true) {
      for (; i < to; i += 8) {
        long word = (long) LONGS.get(buffer, i) ^ ONES * '\n';
        word = word - ONES & ~word & ONES << 7;
        if (word == 0) continue;
        int end = i + (Long.numberOfTrailingZeros(word) >>> 3);
        if (end >= to) break;
        offset = from;
        length = end - from;
        from = end + 1;
        position += length + 1;
        return true;
      }
      i = Math.min(i, to);
      if (ended) return false;
      if (from > 0) {
        System.arraycopy(buffer, from, buffer, 0, to - from);
        i -= from;
        to -= from;
        from = 0;
      }
      int read = in.read(buffer, to, buffer.length - SPARE - to);
      if (read < 0) ended = true;
      else to += read;
    }
  }

  public void close() throws IOException {
    in.close();
  }
}
