package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.backend.Chain;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** Driver and device on a thread each. */
@Timeout(120)
@Tag("unchecked")
class TwoThreadTest {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG;
    private static final int SLOTS = 64;

    static Iterable<Features> features() {
        return EndToEndTest.rings();
    }

    /** Adds a one in the readable part of each buffer and writes the sum to the writable one. */
    private static int serve(DeviceEnd device, Chain chain) {
        int served = 0;
        while (device.next(chain)) {
            chain.writable(0, 8).set(ValueLayout.JAVA_LONG_UNALIGNED, 0, chain.read64(0) + 1);
            device.complete(chain, 8);
            served++;
        }
        return served;
    }

    private static void add(Rig rig, ScatterList list, MemorySegment memory, int slot, long n) {
        memory.set(LONG, slot * 64L, n);
        memory.set(LONG, slot * 64L + 8, 0);
        assertTrue(
                rig.driver.add(
                        list.clear().out(memory, slot * 64L, 8).in(memory, slot * 64L + 8, 8),
                        slot));
    }

    /**
     * Both ends poll: more than a million buffers in all, and each comes back with its own content.
     */
    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-025")
    @Tag("DRV-PACKED-011")
    @Tag("DRV-PACKED-016")
    @Tag("DEV-SPLIT-013")
    @Tag("DEV-SPLIT-014")
    void polling(Features features) throws Exception {
        long total = 300_000;
        try (Arena arena = Arena.ofShared();
                Rig rig = EndToEndTest.rig("identity", features).start(128);
                ExecutorService executor = Executors.newSingleThreadExecutor()) {
            Future<Long> served =
                    executor.submit(
                            () -> {
                                Chain chain = rig.device.newChain();
                                long count = 0;
                                while (count < total && rig.device.broken() == null) {
                                    int some = serve(rig.device, chain);
                                    if (some == 0) {
                                        Thread.onSpinWait();
                                    }
                                    count += some;
                                }
                                return count;
                            });
            MemorySegment memory = arena.allocate(SLOTS * 64L, 64);
            ScatterList list = new ScatterList(2);
            long[] expected = new long[SLOTS];
            long[] tokens = new long[16];
            int[] lengths = new int[16];
            long added = 0;
            for (int slot = 0; slot < SLOTS; slot++) {
                expected[slot] = ++added;
                add(rig, list, memory, slot, expected[slot]);
            }
            rig.driver.kick();
            for (long got = 0; got < total; ) {
                int n = rig.driver.get(tokens, lengths);
                assertNull(rig.driver.broken());
                for (int i = 0; i < n; i++) {
                    int slot = (int) tokens[i];
                    assertEquals(8, lengths[i]);
                    assertEquals(expected[slot] + 1, memory.get(LONG, slot * 64L + 8));
                    if (added < total) {
                        expected[slot] = ++added;
                        add(rig, list, memory, slot, expected[slot]);
                    }
                }
                got += n;
                if (n > 0) {
                    rig.driver.kick();
                } else {
                    Thread.onSpinWait();
                }
            }
            assertEquals(total, served.get(10, TimeUnit.SECONDS));
        }
    }

    /**
     * Both ends sleep until they are notified, with one to four buffers in flight: a notification
     * or an interrupt that is lost leaves both asleep.
     */
    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-026")
    @Tag("DRV-PACKED-017")
    void sleeping(Features features) throws Exception {
        int total = 40_000;
        try (Arena arena = Arena.ofShared();
                Rig rig = EndToEndTest.rig("identity", features);
                ExecutorService executor = Executors.newSingleThreadExecutor()) {
            Semaphore doorbell = new Semaphore(0);
            Semaphore interrupt = new Semaphore(0);
            rig.onNotify = doorbell::release;
            rig.onSchedule = doorbell::release;
            rig.onInterrupt = () -> rig.driver.interrupted();
            rig.callback =
                    queue -> {
                        queue.disableCallback();
                        interrupt.release();
                    };
            rig.start(8);
            boolean[] done = {false};
            Future<?> device =
                    executor.submit(
                            () -> {
                                Chain chain = rig.device.newChain();
                                OneBackend backend = new OneBackend(q -> serve(rig.device, chain));
                                while (true) {
                                    assertTrue(doorbell.tryAcquire(20, TimeUnit.SECONDS), "lost");
                                    doorbell.drainPermits();
                                    if (done[0]) {
                                        return null;
                                    }
                                    rig.device.serve(backend);
                                }
                            });
            MemorySegment memory = arena.allocate(SLOTS * 64L, 64);
            ScatterList list = new ScatterList(2);
            int inFlight = 0;
            int added = 0;
            int got = 0;
            while (got < total) {
                int batch = 1 + (got & 3);
                while (inFlight < batch && added < total) {
                    add(rig, list, memory, inFlight, added);
                    inFlight++;
                    added++;
                }
                rig.driver.kick();
                while (inFlight > 0) {
                    long token = rig.driver.get();
                    if (token >= 0) {
                        inFlight--;
                        got++;
                    } else if (rig.driver.enableCallback()) {
                        assertTrue(
                                interrupt.tryAcquire(20, TimeUnit.SECONDS),
                                () -> "lost interrupt: " + rig.driver.snapshot());
                    }
                }
            }
            done[0] = true;
            doorbell.release();
            device.get(10, TimeUnit.SECONDS);
        }
    }
}
