package peers.equal;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** SipHash of bytes: https://eprint.iacr.org/2012/351. Seven more bytes must follow the text. */
final class SipHash {
  static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

  private SipHash() {}

  /** With one round a word and three at the end: for look-ups in memory. */
  static long fast(long low, long high, byte[] text, int place, int length) {
    return hash(low, high, text, place, length, 1, 3);
  }

  /** With two rounds a word and four at the end: for hashes that are stored. */
  static long strong(long low, long high, byte[] text, int place, int length) {
    return hash(low, high, text, place, length, 2, 4);
  }

  private static long hash(
      long low, long high, byte[] text, int place, int length, int each, int last) {
    long v0 = low ^ 0x736F6D6570736575L, v1 = high ^ 0x646F72616E646F6DL;
    long v2 = low ^ 0x6C7967656E657261L, v3 = high ^ 0x7465646279746573L;
    int rest = length & 7, end = place + length - rest;
    long tail = (long) length << 56;
    if (rest > 0) tail |= (long) LONGS.get(text, end) & (1L << 8 * rest) - 1;
    for (; place <= end; place += 8) {
      long word = place < end ? (long) LONGS.get(text, place) : tail;
      v3 ^= word;
      for (int round = 0; round < each; round++) {
        v0 += v1; v2 += v3;
        v1 = Long.rotateLeft(v1, 13) ^ v0; v3 = Long.rotateLeft(v3, 16) ^ v2;
        v0 = Long.rotateLeft(v0, 32);
        v2 += v1; v0 += v3;
        v1 = Long.rotateLeft(v1, 17) ^ v2; v3 = Long.rotateLeft(v3, 21) ^ v0;
        v2 = Long.rotateLeft(v2, 32);
      }
      v0 ^= word;
    }
    v2 ^= 0xFF;
    for (int round = 0; round < last; round++) {
      v0 += v1; v2 += v3;
      v1 = Long.rotateLeft(v1, 13) ^ v0; v3 = Long.rotateLeft(v3, 16) ^ v2;
      v0 = Long.rotateLeft(v0, 32);
      v2 += v1; v0 += v3;
      v1 = Long.rotateLeft(v1, 17) ^ v2; v3 = Long.rotateLeft(v3, 21) ^ v0;
      v2 = Long.rotateLeft(v2, 32);
    }
    long found = v0 ^ v1 ^ v2 ^ v3;
    return found == 0 ? 1 : found;
  }

  /** A hash of two numbers: the finaliser of MurmurHash3; never 0. */
  static long mixed(long a, long b) {
    long x = a ^ b * 0x9E3779B97F4A7C15L;
    x = (x ^ x >>> 33) * 0xFF51AFD7ED558CCDL;
    x = (x ^ x >>> 33) * 0xC4CEB9FE1A85EC53L;
    x ^= x >>> 33;
    return x == 0 ? 1 : x;
  }
}
