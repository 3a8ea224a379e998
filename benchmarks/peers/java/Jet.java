package peers;

import com.hazelcast.config.Config;
import com.hazelcast.core.Hazelcast;
import com.hazelcast.core.HazelcastInstance;
import com.hazelcast.jet.aggregate.AggregateOperation;
import com.hazelcast.jet.aggregate.AggregateOperation1;
import com.hazelcast.jet.config.JobConfig;
import com.hazelcast.jet.config.ProcessingGuarantee;
import com.hazelcast.jet.pipeline.BatchSource;
import com.hazelcast.jet.pipeline.Pipeline;
import com.hazelcast.jet.pipeline.SinkBuilder;
import com.hazelcast.jet.pipeline.SourceBuilder;
import com.hazelcast.jet.pipeline.WindowDefinition;

/**
 * Hazelcast Jet on one member and one cooperative thread, exactly-once with a snapshot a second, kept in that
 * member's memory; a batch source of one's own has no part in it, which is in Jet's favour. By Jet's own advice
 * the source fills its buffer in blocks.
 */
public class Jet implements Main.Engine {
  private static final int BLOCK = 1024;
  private static final long DISORDER_MS = 10_000;
  private static HazelcastInstance member;

  public void run(String log, String scratch) {
    BatchSource<Event> source =
        SourceBuilder.batch("log", context -> new Lines(log))
            .<Event>fillBufferFn(
                (lines, buffer) -> {
                  for (int i = 0; i < BLOCK; i++) {
                    if (!lines.next()) {
                      buffer.close();
                      return;
                    }
                    buffer.add(Event.parse(lines.buffer, lines.offset, lines.length));
                  }
                })
            .destroyFn(Lines::close)
            .build();
    AggregateOperation1<Event, Minute, Minute> fold =
        AggregateOperation.withCreate(Minute::new)
            .<Event>andAccumulate(Minute::add)
            .andCombine(Minute::merge)
            .andExportFinish(minute -> minute);
    Pipeline pipeline = Pipeline.create();
    pipeline
        .readFrom(source)
        .addTimestamps(event -> event.ts, DISORDER_MS)
        .groupingKey(event -> event.placement)
        .window(WindowDefinition.tumbling(60_000))
        .aggregate(fold)
        .map(result -> result.result().row(result.key(), result.start() / 60_000))
        .writeTo(
            SinkBuilder.sinkBuilder("rows", context -> Main.ROWS)
                .<String>receiveFn((rows, row) -> rows.add(row))
                .build());
    pipeline.setPreserveOrder(true);
    JobConfig settings =
        new JobConfig()
            .setProcessingGuarantee(ProcessingGuarantee.EXACTLY_ONCE)
            .setSnapshotIntervalMillis(1000);
    member().getJet().newJob(pipeline, settings).join();
  }

  /** The one member of this process, started with its first use. */
  public static HazelcastInstance member() {
    if (member == null) member = start();
    return member;
  }

  private static HazelcastInstance start() {
    Config settings = new Config();
    settings.getJetConfig().setEnabled(true).setCooperativeThreadCount(1);
    settings.getNetworkConfig().getJoin().getMulticastConfig().setEnabled(false);
    settings.getNetworkConfig().getJoin().getAutoDetectionConfig().setEnabled(false);
    settings.getNetworkConfig().getInterfaces().setEnabled(true).addInterface("127.0.0.1");
    settings.setProperty("hazelcast.phone.home.enabled", "false");
    settings.setProperty("hazelcast.logging.type", "none");
    return Hazelcast.newHazelcastInstance(settings);
  }
}
