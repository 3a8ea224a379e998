package peers.equal;

import com.hazelcast.jet.Util;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map.Entry;

/** What one snapshot has yet to be given: parts under keys of their own. */
final class Saved {
  final Deque<Entry<String, Object>> parts = new ArrayDeque<>();
  private String name = "";

  /** The parts that follow are those of `name`. */
  Saved begin(String name) {
    this.name = name;
    return this;
  }

  void add(Object part) {
    parts.add(Util.entry(name + "/" + parts.size(), part));
  }

  static String name(Object key) {
    String text = (String) key;
    return text.substring(0, text.lastIndexOf('/'));
  }
}
