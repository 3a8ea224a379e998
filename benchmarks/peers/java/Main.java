package peers;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ConcurrentLinkedQueue;
import peers.equal.Equal;

/**
 * `peers.Main ENGINE LOG SCRATCH`: run the job over the whole log until the compiler is warm, and once more with
 * a meter. Rows go to SCRATCH/rows.csv, what it took to the standard output, as JSON.
 */
public class Main {
  public static final int WARM_RUNS = Integer.getInteger("warm.runs", 4);
  /** What a run has found: each as its lines of text, which are made after the run. */
  public static final ConcurrentLinkedQueue<Object> ROWS = new ConcurrentLinkedQueue<>();

  public interface Engine {
    void run(String log, String scratch) throws Exception;
  }

  public static void main(String[] arguments) throws Exception {
    String log = arguments[1], scratch = arguments[2];
    Engine engine =
        switch (arguments[0]) {
          case "jet" -> new Jet();
          case "flink" -> new Flink();
          case "equal" -> new Equal(false);
          case "equal-failing" -> new Equal(true);
          default -> throw new IllegalArgumentException(arguments[0]);
        };
    for (int i = 0; i < WARM_RUNS; i++) {
      ROWS.clear();
      engine.run(log, scratch);
    }
    ROWS.clear();
    System.gc();
    double startup = ManagementFactory.getRuntimeMXBean().getUptime() / 1e3;
    double cpu = cpu();
    long at = System.nanoTime();
    engine.run(log, scratch);
    double seconds = (System.nanoTime() - at) / 1e9;
    cpu = cpu() - cpu;
    List<String> rows = new ArrayList<>();
    for (Object row : ROWS) rows.add(row.toString());
    Collections.sort(rows);
    Files.write(Path.of(scratch, "rows.csv"), rows);
    System.out.printf(
        Locale.ROOT,
        "{\"seconds\":%.6f,\"cpu_s\":%.6f,\"startup_s\":%.3f,\"peak_mib\":%.1f}%n",
        seconds, cpu, startup, peak());
    System.exit(0);
  }

  private static double cpu() {
    return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
  }

  private static double peak() throws Exception {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmHWM")) return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
    }
    return 0;
  }
}
