package peers.equal;

/** The counts of a flight by labels that no minute has. */
final class Totals {
  long pixels, consented, repeated, tooLate, invalid, latest, first = Long.MAX_VALUE;

  long[] saved() {
    return new long[] {pixels, consented, repeated, tooLate, invalid, latest, first};
  }

  static Totals loaded(long[] saved, int at) {
    Totals of = new Totals();
    of.pixels = saved[at];
    of.consented = saved[at + 1];
    of.repeated = saved[at + 2];
    of.tooLate = saved[at + 3];
    of.invalid = saved[at + 4];
    of.latest = saved[at + 5];
    of.first = saved[at + 6];
    return of;
  }
}
