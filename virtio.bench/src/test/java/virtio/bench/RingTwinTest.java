package virtio.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.transport.QueueLayout;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** What is compared does the same: each end in Java works with each end in C. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RingTwinTest {
    private static final int BUFFERS = 5000;
    private static final int BATCH = 32;

    @TempDir private static Path folder;
    private static RingTwin twin;
    private static long buffer;

    @BeforeAll
    static void compile() throws Exception {
        try {
            RingTwin.compiler();
        } catch (IOException e) {
            assumeTrue(false, "no gcc to compile the ring in C with: " + e.getMessage());
        }
        twin = new RingTwin(RingTwin.compileTwin(folder));
        buffer = Arena.global().allocate(4096, 4096).address();
    }

    static List<RingWay> ways() {
        List<RingWay> ways = new ArrayList<>();
        for (String layout : RingWay.LAYOUTS) {
            for (String workload : RingWay.WORKLOADS) {
                RingWay way = new RingWay(layout, workload);
                if (way.known()) {
                    ways.add(way);
                }
            }
        }
        return ways;
    }

    private static long together(RingTwin.Loop driver, RingTwin.Loop device) throws Throwable {
        CompletableFuture<Long> other = CompletableFuture.supplyAsync(() -> run(device));
        long kicks = run(driver);
        assertTrue(other.get() >= 0, "the device's end broke");
        assertTrue(kicks >= 0, "the driver's end broke");
        return kicks;
    }

    private static long run(RingTwin.Loop loop) {
        try {
            return loop.run(BUFFERS);
        } catch (Throwable e) {
            throw new AssertionError(e);
        }
    }

    @ParameterizedTest
    @MethodSource("ways")
    void aDriverInJavaWorksWithADeviceInC(RingWay way) throws Throwable {
        DriverEnd driver = RingEnds.driver(way);
        long device = twin.device(way, driver.layout());
        together(
                new RingEnds.Driving(way, driver, BATCH, buffer)::run,
                twin.serve(way, device, BATCH));
        assertNull(driver.broken());
        assertEquals(BUFFERS, driver.snapshot().used());
    }

    @ParameterizedTest
    @MethodSource("ways")
    void aDriverInCWorksWithADeviceInJava(RingWay way) throws Throwable {
        QueueLayout ring = RingEnds.memory(way);
        DeviceEnd device = RingEnds.device(way, ring);
        together(
                twin.drive(way, twin.driver(way, ring), BATCH, buffer),
                new RingEnds.Serving(way, device, BATCH)::run);
        assertNull(device.broken());
    }

    @ParameterizedTest
    @MethodSource("ways")
    void bothEndsInOneThreadDo(RingWay way) throws Throwable {
        QueueLayout ring = RingEnds.memory(way);
        int buffers = 100 * BATCH;
        RingTwin.Loop solo =
                twin.solo(way, twin.driver(way, ring), twin.device(way, ring), BATCH, buffer);
        assertTrue(solo.run(buffers) >= 0);
        assertTrue(new RingEnds.Solo(way, BATCH, buffer).run(buffers) >= 0);
    }
}
