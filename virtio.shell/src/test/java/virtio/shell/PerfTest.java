package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;

import java.lang.foreign.MemorySegment;
import java.lang.reflect.Proxy;
import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.Queue;
import java.util.Set;

/** Measuring a disk that is done at once and fails every hundredth read. */
@Timeout(60)
class PerfTest {
    private static final int BYTES = 64 << 10;

    private final Console console = new Console();
    private final Disks disks = new Disks();
    private final Set<Long> offsets = new HashSet<>();
    private final Queue<Long> submitted = new ArrayDeque<>();
    private int mostInFlight;
    private int failed;
    private long collected;

    @BeforeEach
    void attach() {
        disks.addDisk(
                fake(
                        BlockDevice.class,
                        (name, args) ->
                                switch (name) {
                                    case "name" -> "blk0";
                                    case "capacityBytes" -> (long) BYTES;
                                    case "blockSize" -> 512;
                                    case "readOnly" -> true;
                                    case "allocate" ->
                                            MemorySegment.ofArray(
                                                    new byte[Math.toIntExact((long) args[0])]);
                                    case "free" -> null;
                                    case "openQueue" -> fake(BlockQueue.class, this::queue);
                                    default -> throw new AssertionError(name);
                                }));
    }

    private Object queue(String name, Object... args) {
        switch (name) {
            case "read":
                offsets.add((long) args[0]);
                assertEquals(4096, ((MemorySegment) args[1]).byteSize());
                submitted.add((long) args[2]);
                mostInFlight = Math.max(mostInFlight, submitted.size());
                return true;
            case "poll":
                long[] tokens = (long[]) args[0];
                int count = Math.min(3, submitted.size());
                for (int i = 0; i < count; i++) {
                    tokens[i] = submitted.remove();
                    boolean fails = ++collected % 100 == 0;
                    failed += fails ? 1 : 0;
                    ((int[]) args[1])[i] = fails ? BlockQueue.IO_ERROR : BlockQueue.OK;
                }
                return count;
            default:
                return null;
        }
    }

    private interface Behaviour {
        Object of(String name, Object... args);
    }

    private static <T> T fake(Class<T> type, Behaviour behaviour) {
        return type.cast(
                Proxy.newProxyInstance(
                        PerfTest.class.getClassLoader(),
                        new Class<?>[] {type},
                        (proxy, method, args) -> behaviour.of(method.getName(), args)));
    }

    private void perf(String... args) throws Exception {
        new Perf(disks).perf(console.session, args);
    }

    @Test
    void everyBlockIsReadAndWhatFailsIsCounted() {
        var e = assertThrows(VirtioException.class, () -> perf("blk0", "--runtime=1", "--json"));
        assertEquals("%d of %d requests failed".formatted(failed, collected), e.getMessage());
        assertTrue(submitted.isEmpty(), "requests were left behind");
        assertEquals(32, mostInFlight);
        assertEquals(BYTES / 4096, offsets.size());
        assertTrue(
                console.printed().contains("\"ios\":%d,\"errors\":%d".formatted(collected, failed)),
                console::printed);
    }

    @Test
    void whatDoesNotFitIsRefusedBeforeAnythingIsRead() {
        refused("--queue=x, limits are 0 and", "--queue=x");
        refused("--queue=-1, limits are 0 and", "--queue=-1");
        refused("--rw=both, it is one of randread", "--rw=both");
        refused("--bs=1000 on blk0, limits are its block size 512", "--bs=1000");
        refused("--bs=1048576 on blk0", "--bs=1m");
        refused("blk0 is read-only", "--rw=write");
    }

    private void refused(String message, String option) {
        var e = assertThrows(Exception.class, () -> perf("blk0", option));
        assertTrue(e.getMessage().startsWith(message), e.getMessage());
        assertEquals(0, collected);
    }
}
