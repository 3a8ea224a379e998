package peers.equal;

import java.util.TreeMap;

/** The minutes that are open or within the last hour. */
final class Minutes {
  final TreeMap<Integer, Minute> live = new TreeMap<>();
  private final Minute[] recent = new Minute[64];

  Minute of(int minute) {
    Minute found = recent[minute & 63];
    if (found != null && found.minute == minute) return found;
    return recent[minute & 63] = live.computeIfAbsent(minute, Minute::new);
  }

  void drop(Minute gone) {
    live.remove(gone.minute);
    if (recent[gone.minute & 63] == gone) recent[gone.minute & 63] = null;
  }
}
