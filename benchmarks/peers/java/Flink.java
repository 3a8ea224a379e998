package peers;

import java.time.Duration;
import java.util.List;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.CheckpointingMode;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.SinkFunction;
import org.apache.flink.streaming.api.functions.source.SourceFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * Flink's DataStream API, one slot, exactly-once checkpoints once a second to files. By Flink's own advice:
 * objects are reused, events are a POJO, watermarks are the source's, and source, window and sink are one
 * chain, so that nothing is serialised between them.
 */
public class Flink implements Main.Engine {
  private static final int BLOCK = 1024;
  private static final long DISORDER_MS = 10_000;

  public void run(String log, String scratch) throws Exception {
    Configuration settings = new Configuration();
    settings.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.ofMebiBytes(64));
    StreamExecutionEnvironment flow = StreamExecutionEnvironment.createLocalEnvironment(1, settings);
    flow.getConfig().enableObjectReuse();
    flow.getConfig().setAutoWatermarkInterval(0);
    flow.enableCheckpointing(1000, CheckpointingMode.EXACTLY_ONCE);
    flow.getCheckpointConfig().setCheckpointStorage("file://" + scratch + "/checkpoints");
    SingleOutputStreamOperator<Event> events = flow.addSource(new Source(log), "log", Types.POJO(Event.class));
    KeySelector<Event, String> key = event -> event.placement;
    DataStreamUtils.reinterpretAsKeyedStream(events, key, Types.STRING)
        .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
        .aggregate(
            new Fold(), new Row(), Types.GENERIC(Minute.class), Types.GENERIC(Minute.class), Types.STRING)
        .addSink(new Out());
    flow.execute("peers");
  }

  /** Reads the log; its place in it is part of every checkpoint. */
  static class Source implements SourceFunction<Event>, CheckpointedFunction {
    private final String log;
    private volatile boolean running = true;
    private long position, latest;
    private transient ListState<Long> saved;

    Source(String log) {
      this.log = log;
    }

    public void run(SourceContext<Event> context) throws Exception {
      try (Lines lines = new Lines(log)) {
        lines.seek(position);
        boolean more = true;
        while (running && more) {
          synchronized (context.getCheckpointLock()) {
            for (int i = 0; i < BLOCK && (more = lines.next()); i++) {
              Event event = Event.parse(lines.buffer, lines.offset, lines.length);
              latest = Math.max(latest, event.ts);
              context.collectWithTimestamp(event, event.ts);
            }
            position = lines.position;
            context.emitWatermark(new Watermark(latest - DISORDER_MS));
          }
        }
      }
    }

    public void cancel() {
      running = false;
    }

    public void snapshotState(FunctionSnapshotContext context) throws Exception {
      saved.update(List.of(position, latest));
    }

    public void initializeState(FunctionInitializationContext context) throws Exception {
      saved = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("place", Types.LONG));
      int i = 0;
      for (long value : saved.get()) {
        if (i++ == 0) position = value;
        else latest = value;
      }
    }
  }

  static class Fold implements AggregateFunction<Event, Minute, Minute> {
    public Minute createAccumulator() {
      return new Minute();
    }

    public Minute add(Event event, Minute minute) {
      return minute.add(event);
    }

    public Minute getResult(Minute minute) {
      return minute;
    }

    public Minute merge(Minute one, Minute other) {
      return one.merge(other);
    }
  }

  static class Row extends ProcessWindowFunction<Minute, String, String, TimeWindow> {
    public void process(String placement, Context context, Iterable<Minute> found, Collector<String> out) {
      out.collect(found.iterator().next().row(placement, context.window().getStart() / 60_000));
    }
  }

  static class Out implements SinkFunction<String> {
    public void invoke(String row, Context context) {
      Main.ROWS.add(row);
    }
  }
}
