package peers.equal;

import java.util.ArrayList;
import java.util.List;

/** Pixels as columns, with what became of the lines that they were read from. */
final class Block {
  static final int SIZE = 1024;
  static final int LINKED = 1 << 8, TRAFFIC = 1 << 9, CONSENTED = 1 << 10, CODE = 0xFF, DELAY_SHIFT = 12;
  final long[] play = new long[SIZE], listener = new long[SIZE], ts = new long[SIZE], watermark = new long[SIZE];
  /** The class of the delay, flags and the event's code; and the number of the pixel's labels. */
  final int[] info = new int[SIZE], labels = new int[SIZE];
  int count;
  /** Labels that no block before this one had, each as placement, campaign, platform and station. */
  final List<String[]> fresh = new ArrayList<>();
  /** Lines by verdict, the place in the log behind them, and the greatest event time so far. */
  final long[] lines = new long[4];
  long position, greatest;
}
