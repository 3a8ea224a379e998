package peers;

import java.io.Closeable;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/** Lines of a file as slices of one large buffer; `position` is where the next one begins. */
public class Lines implements Closeable {
  public byte[] buffer = new byte[1 << 20];
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
      for (; i < to; i++) {
        if (buffer[i] == '\n') {
          offset = from;
          length = i - from;
          from = i + 1;
          position += length + 1;
          return true;
        }
      }
      if (ended) return false;
      if (from > 0) {
        System.arraycopy(buffer, from, buffer, 0, to - from);
        i -= from;
        to -= from;
        from = 0;
      }
      int read = in.read(buffer, to, buffer.length - to);
      if (read < 0) ended = true;
      else to += read;
    }
  }

  public void close() throws IOException {
    in.close();
  }
}
