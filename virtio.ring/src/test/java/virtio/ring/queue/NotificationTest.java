package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** Who notifies whom, and when not. */
class NotificationTest {
    private static final Features FLAGS = Features.of(Feature.VERSION_1);
    private static final Features EVENT = FLAGS.with(Feature.EVENT_IDX);
    private static final Features PACKED = FLAGS.with(Feature.RING_PACKED);
    private static final Features PACKED_EVENT = EVENT.with(Feature.RING_PACKED);
    private static final List<Features> ALL = List.of(FLAGS, EVENT, PACKED, PACKED_EVENT);

    private final Arena arena = Arena.ofShared();
    private final MemorySegment buffer = arena.allocate(64, 8);
    private final ScatterList list = new ScatterList(1).out(buffer);
    private Rig rig;
    private Chain chain;

    @AfterEach
    void stop() {
        rig.close();
        arena.close();
    }

    private void start(Features features) throws Exception {
        if (rig != null) {
            rig.close();
        }
        rig = new Rig(Mapped.identity(), features);
        rig.start(16);
        chain = rig.device.newChain();
    }

    private int availableFlags() {
        return RingMemory.get16(rig.driver.layout().driverArea());
    }

    private int usedFlags() {
        return RingMemory.get16(rig.driver.layout().deviceArea());
    }

    private void add(int count) {
        for (int i = 0; i < count; i++) {
            assertTrue(rig.driver.add(list, i));
        }
    }

    /** The device uses that many buffers and notifies once. */
    private void use(int count) {
        for (int i = 0; i < count; i++) {
            assertTrue(rig.device.next(chain));
            rig.device.complete(chain, 0);
        }
        rig.device.notifyDriver();
    }

    private void get(int count) {
        for (int i = 0; i < count; i++) {
            assertTrue(rig.driver.get() != Virtqueue.NONE);
        }
    }

    @Test
    @Tag("DRV-SPLIT-020")
    @Tag("DRV-SPLIT-021")
    @Tag("DEV-SPLIT-016")
    @Tag("DEV-SPLIT-017")
    void driverNotifiesUnlessTheDeviceIsAtWork() throws Exception {
        start(FLAGS);
        List<Boolean> wanted = new ArrayList<>();
        add(1);
        wanted.add(rig.driver.kickPrepare());
        rig.device.serve(
                new OneBackend(
                        q -> {
                            if (usedFlags() == 1) {
                                add(1);
                                wanted.add(rig.driver.kickPrepare());
                            }
                            while (q.next(chain)) {
                                q.complete(chain, 0);
                            }
                        }));
        assertEquals(0, usedFlags());
        add(1);
        wanted.add(rig.driver.kickPrepare());
        assertEquals(List.of(true, false, true), wanted);
        assertFalse(rig.driver.kickPrepare(), "nothing was added");
    }

    @Test
    void serveLooksAgainAfterItAskedForNotifications() throws Exception {
        for (Features features : ALL) {
            start(features);
            int[] rounds = {0};
            add(1);
            rig.driver.kick();
            rig.device.serve(
                    new OneBackend(
                            q -> {
                                while (q.next(chain)) {
                                    q.complete(chain, 0);
                                }
                                // Too late for this round, and without a notification.
                                if (rounds[0]++ == 0) {
                                    add(1);
                                    rig.driver.kickPrepare();
                                }
                            }));
            assertEquals(2, rounds[0]);
            get(2);
        }
    }

    @Test
    void serveDoesNotSpinOnBuffersThatTheBackendLeaves() throws Exception {
        for (Features features : ALL) {
            start(features);
            int[] rounds = {0};
            add(3);
            rig.driver.kick();
            OneBackend lazy = new OneBackend(q -> rounds[0]++);
            rig.device.serve(lazy);
            assertEquals(1, rounds[0]);
            add(1);
            assertTrue(rig.driver.kickPrepare());
            rig.device.serve(lazy);
            assertEquals(2, rounds[0]);
        }
    }

    @Test
    @Tag("DRV-SPLIT-022")
    @Tag("DRV-SPLIT-023")
    @Tag("DRV-SPLIT-024")
    @Tag("DEV-SPLIT-018")
    @Tag("DEV-SPLIT-019")
    void driverNotifiesWhenTheAvailableEventIsPassed() throws Exception {
        driverNotifiesOnce(EVENT);
        RingMemory.set16(rig.driver.layout().deviceArea(), 1);
        add(1);
        assertTrue(rig.driver.kickPrepare(), "flags do not count");
    }

    @Test
    @Tag("DRV-PACKED-017")
    void driverNotifiesWhenTheDeviceEventIsPassed() throws Exception {
        driverNotifiesOnce(PACKED_EVENT);
    }

    private void driverNotifiesOnce(Features features) throws Exception {
        start(features);
        OneBackend all =
                new OneBackend(
                        q -> {
                            while (q.next(chain)) {
                                q.complete(chain, 0);
                            }
                        });
        // 70,000 buffers: the event index wraps.
        for (int i = 0; i < 10_000; i++) {
            add(1);
            assertTrue(rig.driver.kickPrepare());
            if (features == EVENT) {
                assertEquals(0, usedFlags());
            }
            add(6);
            assertFalse(rig.driver.kickPrepare(), "the device was told already");
            rig.device.serve(all);
            get(7);
        }
    }

    @Test
    @Tag("DRV-PACKED-004")
    void notificationDataIsWhereTheRingGoesOn() throws Exception {
        start(FLAGS.with(Feature.NOTIFICATION_DATA));
        add(3);
        assertTrue(rig.driver.kick());
        assertEquals(3 << 16, rig.notifyData);
        assertEquals(1, rig.driver.snapshot().notifications());
        start(PACKED.with(Feature.NOTIFICATION_DATA));
        add(3);
        assertTrue(rig.driver.kick());
        assertEquals((0x8000 | 3) << 16, rig.notifyData);
        use(3);
        get(3);
        add(15);
        assertTrue(rig.driver.kick());
        assertEquals(2 << 16, rig.notifyData, "in the second lap");
    }

    @Test
    @Tag("DRV-SPLIT-012")
    @Tag("DRV-SPLIT-013")
    @Tag("DEV-SPLIT-008")
    @Tag("DEV-SPLIT-009")
    void deviceInterruptsUnlessTheDriverDoesNotWantIt() throws Exception {
        start(FLAGS);
        add(8);
        rig.driver.kick();
        assertEquals(0, availableFlags());
        use(1);
        assertEquals(1, rig.interrupts);
        get(1);
        rig.driver.disableCallback();
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals(1, availableFlags());
        use(1);
        assertEquals(1, rig.interrupts);
        assertFalse(rig.driver.enableCallback(), "one was used meanwhile");
        get(1);
        assertTrue(rig.driver.enableCallback());
        assertEquals(0, availableFlags());
        use(1);
        assertEquals(2, rig.interrupts);
        rig.device.notifyDriver();
        assertEquals(2, rig.interrupts, "nothing was used since");
    }

    @Test
    @Tag("DRV-SPLIT-014")
    @Tag("DRV-SPLIT-015")
    @Tag("DEV-SPLIT-010")
    @Tag("DEV-SPLIT-011")
    @Tag("DEV-SPLIT-012")
    void deviceInterruptsWhenTheUsedEventIsPassed() throws Exception {
        deviceInterruptsOnce(EVENT);
        assertEquals(0, availableFlags());
    }

    /** What was asked for before may still come, but not again when the ring has gone round. */
    @Test
    void aPollingDriverIsLeftAlone() throws Exception {
        for (Features features : ALL) {
            start(features);
            int before = rig.interrupts;
            rig.driver.disableCallback();
            // Split event indices wrap as well.
            for (int i = 0; i < 30_000; i++) {
                add(3);
                rig.driver.kickPrepare();
                use(3);
                get(3);
                assertEquals(Virtqueue.NONE, rig.driver.get());
            }
            int limit = features == EVENT ? 2 : 1;
            assertTrue(rig.interrupts - before <= limit, () -> features + ": " + rig.interrupts);
        }
    }

    /** Each write would take the line from the other end, which reads it after every buffer. */
    @Test
    void aWishWhoseEventHasPassedIsNotWrittenAgain() throws Exception {
        start(PACKED_EVENT);
        long driverWish = rig.driver.layout().driverArea();
        long deviceWish = rig.driver.layout().deviceArea();
        assertTrue(rig.driver.enableCallback());
        int asked = RingMemory.getOpaque32(driverWish);
        rig.driver.disableCallback();
        for (int i = 0; i < 15; i++) {
            add(1);
            rig.driver.kickPrepare();
            int wish = RingMemory.getOpaque32(deviceWish);
            rig.device.serve(
                    new OneBackend(
                            q -> {
                                while (q.next(chain)) {
                                    q.complete(chain, 0);
                                }
                                assertEquals(wish, RingMemory.getOpaque32(deviceWish));
                            }));
            get(1);
            assertEquals(asked, RingMemory.getOpaque32(driverWish));
        }
    }

    @Test
    void deviceInterruptsWhenTheDriverEventIsPassed() throws Exception {
        deviceInterruptsOnce(PACKED_EVENT);
    }

    private void deviceInterruptsOnce(Features features) throws Exception {
        start(features);
        for (int i = 0; i < 10_000; i++) {
            int before = rig.interrupts;
            add(7);
            rig.driver.kickPrepare();
            use(1);
            assertEquals(before + 1, rig.interrupts);
            use(6);
            assertEquals(before + 1, rig.interrupts, "the driver was told already");
            get(7);
            assertEquals(Virtqueue.NONE, rig.driver.get(), "and asks for the next one here");
        }
    }

    @Test
    void disabledCallbacksAreNotAskedForAgain() throws Exception {
        disabledCallbacks(EVENT);
        disabledCallbacks(PACKED);
        disabledCallbacks(PACKED_EVENT);
    }

    private void disabledCallbacks(Features features) throws Exception {
        start(features);
        rig.driver.disableCallback();
        add(8);
        rig.driver.kickPrepare();
        use(1);
        get(1);
        int before = rig.interrupts;
        for (int i = 0; i < 7; i++) {
            assertEquals(Virtqueue.NONE, rig.driver.get());
            use(1);
            get(1);
        }
        assertEquals(before, rig.interrupts);
    }

    @Test
    void delayedCallbackComesWhenMostAreUsed() throws Exception {
        delayedCallback(EVENT);
        delayedCallback(PACKED_EVENT);
    }

    private void delayedCallback(Features features) throws Exception {
        start(features);
        add(16);
        rig.driver.kick();
        assertTrue(rig.driver.enableCallbackDelayed());
        for (int i = 0; i < 12; i++) {
            use(1);
            assertEquals(0, rig.interrupts, "after " + (i + 1));
            get(1);
            assertEquals(Virtqueue.NONE, rig.driver.get());
        }
        use(1);
        assertEquals(1, rig.interrupts);
        get(1);
        assertTrue(rig.driver.enableCallbackDelayed());
        use(3);
        assertFalse(rig.driver.enableCallbackDelayed(), "three quarters of three are used");
    }

    @Test
    void splitPhaseEnable() throws Exception {
        for (Features features : ALL) {
            start(features);
            add(2);
            rig.driver.kick();
            rig.driver.disableCallback();
            int prepared = rig.driver.enableCallbackPrepare();
            assertFalse(rig.driver.poll(prepared));
            use(1);
            assertTrue(rig.driver.poll(prepared));
            get(1);
            assertFalse(rig.driver.poll(rig.driver.enableCallbackPrepare()));
        }
    }

    @Test
    @Tag("DRV-SPLIT-016")
    void callbackRunsForUsedBuffersOnly() throws Exception {
        for (Features features : ALL) {
            start(features);
            rig.callbacks = 0;
            add(2);
            rig.driver.kick();
            rig.driver.interrupted();
            assertEquals(0, rig.callbacks, "spurious");
            use(1);
            rig.driver.interrupted();
            assertEquals(1, rig.callbacks);
            assertEquals(1, rig.driver.snapshot().interrupts());
            rig.driver.disableCallback();
            rig.driver.interrupted();
            assertEquals(1, rig.callbacks, "disabled");
            get(1);
            rig.driver.enableCallback();
            rig.driver.interrupted();
            assertEquals(1, rig.callbacks, "nothing is used");
            rig.driver.close();
            rig.driver.interrupted();
        }
    }

    @Test
    void withoutACallbackNoInterruptIsAskedFor() throws Exception {
        for (Features features : ALL) {
            if (rig != null) {
                rig.close();
            }
            rig = new Rig(Mapped.identity(), features);
            rig.callback = null;
            rig.start(16);
            chain = rig.device.newChain();
            add(4);
            rig.driver.kick();
            use(4);
            get(4);
            rig.driver.get();
            assertEquals(0, rig.interrupts);
        }
    }

    @Test
    void aBackendThatFailsBreaksItsQueue() throws Exception {
        start(FLAGS);
        rig.device.serve(
                new OneBackend(
                        q -> {
                            throw new VirtioException("the disk is on fire");
                        }));
        assertEquals(
                List.of(
                        "queue 0: the backend failed: virtio.api.VirtioException: the disk is on"
                                + " fire"),
                rig.deviceBroken);
    }
}
