package virtio.bench;

import virtio.api.map.Direction;
import virtio.transport.vduse.MapFork;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The map operations of a vDPA device: a buffer that lies in the device's memory against one that
 * is bounced, in turns.
 *
 * <p>Each fork is a JVM that measures one size and direction, see {@link MapFork}. What counts is
 * the ratio of two rounds that follow each other.
 */
final class MapBench {
    static final Map<String, String> DEFAULTS =
            Map.of("bytes", "4096,131072", "forks", "3", "millis", "1000");

    private static final int MOST_BYTES = 1 << 20;
    private static final long FORK_SECONDS = 300;

    private record Fork(int bytes, Direction direction) {
        String request() {
            return direction == Direction.TO_DEVICE ? "write" : "read";
        }
    }

    private MapBench() {}

    static void run(Options options) throws Exception {
        int rounds = options.number("forks", 1000);
        int millis = options.number("millis", 3_600_000);
        Map<Fork, Map<String, Series>> said = new LinkedHashMap<>();
        for (int bytes : options.numbers("bytes", MOST_BYTES)) {
            for (Direction direction : List.of(Direction.TO_DEVICE, Direction.FROM_DEVICE)) {
                said.put(new Fork(bytes, direction), new LinkedHashMap<>());
            }
        }
        Report report = new Report("map operations of a vDPA device, bounced over zero-copy");
        int processor = Machine.processors().getFirst();
        List<Fork> order = new ArrayList<>(said.keySet());
        for (int round = 0; round < rounds; round++) {
            Collections.shuffle(order);
            for (Fork fork : order) {
                System.err.printf(
                        "fork %d of %d: %s of %d bytes%n",
                        round + 1, rounds, fork.request(), fork.bytes);
                List<String> command =
                        RingBench.java(
                                MapFork.class, fork.bytes, fork.direction, millis, processor);
                for (String line : Peers.output(FORK_SECONDS, command).split("\n")) {
                    int space = line.indexOf(' ');
                    said.get(fork)
                            .computeIfAbsent(line.substring(0, space), name -> new Series())
                            .add(Double.parseDouble(line.substring(space + 1)));
                }
            }
        }
        report.header("forks", "%d of %d ms".formatted(rounds, millis));
        said.forEach(
                (fork, series) ->
                        report.row(
                                "bytes", fork.bytes,
                                "request", fork.request(),
                                "mapNanos", series.get("map.shared").median(),
                                "bouncedMapNanos", series.get("map.bounced").median(),
                                "requestNanos", series.get("request.shared").median(),
                                "bouncedRequestNanos", series.get("request.bounced").median(),
                                "ratioMin", series.get("ratio").min(),
                                "ratioMedian", series.get("ratio").median(),
                                "ratioMax", series.get("ratio").max(),
                                "bytesPerOperation", series.get("bytes").max()));
        report.print(options.json());
    }
}
