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
  /** The place in the log from which the source was restored last. */
  static final AtomicLong restored = new AtomicLong();
  private final long pauseMs;
  private int run;

  /** With a pause before each block the job is restarted in its middle, from a snapshot. */
  public Equal(long pauseMs) {
    this.pauseMs = pauseMs;
  }

  @Override
  public void run(String log, String scratch) throws Exception {
    String url = System.getProperty("redis.url"), namespace = System.getProperty("redis.namespace");
    String own = ++run <= Main.WARM_RUNS ? namespace + ":warm" : namespace;
    long pause = pauseMs;
    DAG dag = new DAG();
    Vertex source = vertex(dag, "log", () -> new LogReader(log, pause));
    Vertex counter = vertex(dag, "counter", Counter::new);
    Vertex writer = vertex(dag, "redis", () -> new RedisWriter(url, own));
    dag.edge(between(source, counter).setConfig(SHORT)).edge(between(counter, writer).setConfig(SHORT));
    JobConfig settings =
        new JobConfig()
            .setProcessingGuarantee(ProcessingGuarantee.EXACTLY_ONCE)
            .setSnapshotIntervalMillis(pause > 0 ? 50 : 1000);
    Job job = Jet.member().getJet().newJob(dag, settings);
    if (pause > 0) {
      while (job.getStatus() == JobStatus.STARTING || job.getStatus() == JobStatus.NOT_RUNNING) Thread.sleep(1);
      Thread.sleep(300);
      job.restart();
    }
    job.join();
    if (pause > 0 && restored.getAndSet(0) == 0) throw new IllegalStateException("nothing was restored");
  }

  private static Vertex vertex(DAG dag, String name, SupplierEx<Processor> made) {
    return dag.newVertex(name, made).localParallelism(1);
  }
}
