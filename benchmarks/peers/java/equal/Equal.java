package peers.equal;

import static com.hazelcast.jet.core.Edge.between;

import com.hazelcast.function.SupplierEx;
import com.hazelcast.jet.Job;
import com.hazelcast.jet.config.EdgeConfig;
import com.hazelcast.jet.config.JobConfig;
import com.hazelcast.jet.config.ProcessingGuarantee;
import com.hazelcast.jet.core.DAG;
import com.hazelcast.jet.core.JobStatus;
import com.hazelcast.jet.core.Processor;
import com.hazelcast.jet.core.Vertex;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import peers.Jet;
import peers.Main;

/**
 * The flow's work on the bench's log, written by hand for Hazelcast Jet: three processors of its Core API, the
 * source and the sink on threads of their own, exactly-once by a snapshot a second.
 *
 * <p>By Jet's own advice (its manual, "Build Your DAG" and "Fault Tolerance"): processors that block are not
 * cooperative, queues are short where items are large, and state is saved in few large parts.
 */
public final class Equal implements Main.Engine {
  private static final EdgeConfig SHORT = new EdgeConfig().setQueueSize(16);
  /** Failures of sources, and the place in the log from which one was restored last. */
  static final AtomicInteger failures = new AtomicInteger();
  static final AtomicLong restored = new AtomicLong();
  private final boolean fails;
  private int run;

  /** With `fails` the source of each run fails once in its middle, and the job goes on from a snapshot. */
  public Equal(boolean fails) {
    this.fails = fails;
  }

  @Override
  public void run(String log, String scratch) throws Exception {
    String url = System.getProperty("redis.url"), namespace = System.getProperty("redis.namespace");
    String own = ++run <= Main.WARM_RUNS ? namespace + ":warm" : namespace;
    boolean failing = fails;
    failures.set(0);
    restored.set(0);
    DAG dag = new DAG();
    Vertex source = vertex(dag, "log", () -> new LogReader(log, failing));
    Vertex counter = vertex(dag, "counter", Counter::new);
    Vertex writer = vertex(dag, "redis", () -> new RedisWriter(url, own));
    dag.edge(between(source, counter).setConfig(SHORT)).edge(between(counter, writer).setConfig(SHORT));
    JobConfig settings =
        new JobConfig()
            .setProcessingGuarantee(ProcessingGuarantee.EXACTLY_ONCE)
            .setSnapshotIntervalMillis(fails ? 20 : 1000)
            .setSuspendOnFailure(fails);
    Job job = Jet.member().getJet().newJob(dag, settings);
    if (fails) {
      while (job.getStatus() != JobStatus.SUSPENDED && !job.getStatus().isTerminal()) Thread.sleep(5);
      job.resume();
    }
    job.join();
    if (fails && restored.get() == 0) throw new IllegalStateException("nothing was restored");
  }

  private static Vertex vertex(DAG dag, String name, SupplierEx<Processor> made) {
    return dag.newVertex(name, made).localParallelism(1);
  }
}
