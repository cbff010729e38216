package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/** What a transport promises about queues, notifications in both directions and driver memory. */
public abstract class QueueContract extends Contract {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;
    private static final Features PACKED =
            Features.of(Feature.VERSION_1, Feature.RING_PACKED, Feature.RING_RESET);

    /** Descriptor 0 with wrap counter 1, for available and for used descriptors. */
    private static final int FIRST_LAP = 0x8000_8000;

    /** For subclasses. */
    protected QueueContract() {}

    private Driven drive() throws VirtioException {
        return drive(new TestDevice(3, 16));
    }

    @Test
    @Tag("DRV-MMIO-009")
    void sizeLimitIsTheDevicesAndZeroWhereThereIsNoQueue() throws Exception {
        Driven driven = drive();
        driven.negotiate();
        int max = driven.transport.maxQueueSize(2);
        assertTrue(max >= Driven.QUEUE_SIZE, "limit " + max);
        assertEquals(1, Integer.bitCount(max), "limit " + max);
        assertEquals(0, driven.transport.maxQueueSize(3));
        assertThrows(
                VirtioException.class, () -> driven.transport.startQueue(3, driven.layout(16)));
        assertThrows(
                VirtioException.class, () -> driven.transport.startQueue(0, driven.layout(65536)));
    }

    @Test
    @Tag("DRV-CORE-017")
    void queueIsStartedWhereTheDriverLaidIt() throws Exception {
        Driven driven = drive();
        driven.negotiate();
        QueueLayout layout = driven.layout(32);
        long[] areas = {layout.descriptorArea(), layout.driverArea(), layout.deviceArea()};
        for (int i = 0; i < areas.length; i++) {
            driven.memory(areas[i]).set(LONG, 8, 0x1234_5678_9abcL + i);
        }
        driven.transport.startQueue(1, layout);
        driven.driverOk();
        TestDevice.Started started = driven.started(1);
        assertEquals(32, started.layout().size());
        assertEquals(0, started.layout().nextAvailable());
        long[] seen = {
            started.layout().descriptorArea(),
            started.layout().driverArea(),
            started.layout().deviceArea()
        };
        for (int i = 0; i < seen.length; i++) {
            long address = started.memory().translate(seen[i], 4096, true);
            assertNotEquals(DriverMemory.FAULT, address, "area " + i);
            MemorySegment memory = subject.at(address, 4096);
            assertEquals(0x1234_5678_9abcL + i, memory.get(LONG, 8), "area " + i);
            memory.set(LONG, 16, 99 + i);
            assertEquals(99 + i, driven.memory(areas[i]).get(LONG, 16), "area " + i);
        }
        assertNull(driven.device.queue(0));
        assertNull(driven.device.queue(2));
        assertThrows(VirtioException.class, () -> driven.transport.startQueue(1, layout), "in use");
    }

    @Test
    void deviceReachesNothingThatWasNotShared() throws Exception {
        Driven driven = drive().run(0);
        DriverMemory memory = driven.started(0).memory();
        long[] outside = {0, 1, -1, 4096, Long.MIN_VALUE, Long.MAX_VALUE, Long.MAX_VALUE - 4095};
        for (long handle : outside) {
            assertEquals(DriverMemory.FAULT, memory.translate(handle, 4096, false), "" + handle);
            assertEquals(0, memory.reach(handle, true), "" + handle);
        }
        long area = driven.layout(16).descriptorArea();
        long reach = memory.reach(area, true);
        assertTrue(reach >= 4096, "reach " + reach);
        assertNotEquals(DriverMemory.FAULT, memory.translate(area, reach, true));
        for (long length : new long[] {reach + 1, Long.MAX_VALUE, -1, Long.MIN_VALUE}) {
            assertEquals(DriverMemory.FAULT, memory.translate(area, length, true), "" + length);
        }
    }

    @Test
    void notificationReachesTheDeviceOnAnotherThread() throws Exception {
        Driven driven = drive().run(0, 1, 2);
        for (int queue : new int[] {2, 0, 1}) {
            driven.settle(queue);
        }
        driven.device.forgetNotified();
        driven.transport.notifyQueue(1, 1);
        TestDevice.Notified notified;
        do {
            notified = driven.device.awaitNotified();
            assertNotSame(Thread.currentThread(), notified.thread());
        } while (notified.queue() != 1);
    }

    @Test
    void noNotificationIsLost() throws Exception {
        Driven driven = drive();
        AtomicInteger asked = new AtomicInteger();
        AtomicInteger seen = new AtomicInteger();
        driven.device.onNotified(queue -> seen.set(asked.get()));
        driven.run(0);
        driven.started(0);
        for (int i = 1; i <= 20_000; i++) {
            asked.set(i);
            driven.transport.notifyQueue(0, 0);
            int wanted = i;
            // Now and then the device's thread has gone to sleep meanwhile.
            if (i % 1000 == 0) {
                Driven.await(() -> seen.get() == wanted, "notification " + i);
                Thread.sleep(1);
            } else if (i % 3 == 0) {
                Driven.await(() -> seen.get() == wanted, "notification " + i);
            }
        }
    }

    @Test
    void notifyingAllocatesNothing() throws Exception {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        Driven driven = drive().run(0);
        driven.started(0);
        long least = Long.MAX_VALUE;
        // Until it is compiled, however long a busy machine takes for that.
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (least >= 2_000 && System.nanoTime() - end < 0) {
            long before = threads.getCurrentThreadAllocatedBytes();
            for (int i = 0; i < 2_000; i++) {
                driven.transport.notifyQueue(0, 0);
            }
            least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        assertTrue(least < 2_000, least + " bytes allocated by 2000 notifications");
    }

    @Test
    @Tag("DRV-MMIO-021")
    @Tag("DRV-MMIO-023")
    @Tag("DEV-MMIO-003")
    void everyInterruptReachesTheListener() throws Exception {
        Driven driven = drive();
        driven.device.onNotified(queue -> interrupt(driven, queue));
        driven.run(0, 1);
        for (int i = 0; i < 200; i++) {
            int queue = i % 2;
            driven.started(queue);
            driven.used.clear();
            driven.transport.notifyQueue(queue, queue);
            while (Driven.await(driven.used, "interrupt of queue " + queue) != queue) {
                // One line for all queues is allowed.
            }
        }
    }

    /** On the queue's thread, which may be the last to hear that the queue was stopped. */
    private static void interrupt(Driven driven, int queue) {
        TestDevice.Started started = driven.device.queue(queue);
        if (started != null) {
            started.export().interrupt(queue);
        }
    }

    @Test
    void interruptingAllocatesNothing() throws Exception {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        Driven driven = drive();
        AtomicInteger handled = new AtomicInteger();
        driven.transport.listen(
                new TestListener() {
                    @Override
                    public void queueUsed(int queue) {
                        handled.getAndIncrement();
                    }
                });
        AtomicLong least = new AtomicLong(Long.MAX_VALUE);
        driven.device.onNotified(
                queue -> {
                    TestDevice.Started started = driven.device.queue(queue);
                    if (started == null) {
                        return;
                    }
                    Export export = started.export();
                    long before = threads.getCurrentThreadAllocatedBytes();
                    for (int i = 0; i < 2_000; i++) {
                        export.interrupt(queue);
                    }
                    long after = threads.getCurrentThreadAllocatedBytes();
                    least.accumulateAndGet(after - before, Math::min);
                });
        driven.run(0);
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (least.get() >= 2_000 && System.nanoTime() - end < 0) {
            driven.settle(0);
        }
        Driven.await(() -> handled.get() > 0, "an interrupt");
        driven.transport.status(0);
        assertTrue(least.get() < 2_000, least + " bytes allocated by 2000 interrupts");
    }

    @Test
    void handlerRunsOnAThreadOfTheTransport() throws Exception {
        Driven driven = drive();
        Thread[] handler = new Thread[1];
        CountDownLatch handled = new CountDownLatch(1);
        driven.transport.listen(
                new TestListener() {
                    @Override
                    public void queueUsed(int queue) {
                        handler[0] = Thread.currentThread();
                        handled.countDown();
                    }
                });
        driven.device.onNotified(queue -> interrupt(driven, queue));
        driven.run(0);
        driven.started(0);
        driven.transport.notifyQueue(0, 0);
        assertTrue(handled.await(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS));
        assertNotSame(Thread.currentThread(), handler[0]);
    }

    @Test
    void failingHandlerDisturbsNobody() throws Exception {
        Driven driven = drive();
        CountDownLatch second = new CountDownLatch(2);
        driven.transport.listen(
                new TestListener() {
                    @Override
                    public void queueUsed(int queue) {
                        second.countDown();
                        throw new IllegalStateException("thrown by the test, to be survived");
                    }
                });
        driven.device.onNotified(queue -> interrupt(driven, queue));
        driven.run(0);
        driven.started(0);
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (second.getCount() > 0 && System.nanoTime() - end < 0) {
            driven.transport.notifyQueue(0, 0);
            second.await(1, TimeUnit.MILLISECONDS);
        }
        assertEquals(0, second.getCount(), "interrupts that came after a failed handler");
        assertEquals(
                0,
                driven.transport.status() & DeviceStatus.DEVICE_NEEDS_RESET,
                "the device has no part in it");
    }

    @Test
    void scheduledQueueIsServedOnItsOwnThread() throws Exception {
        Driven driven = drive().run(0);
        driven.settle(0);
        driven.device.forgetNotified();
        driven.started(0).export().schedule(0);
        TestDevice.Notified notified = driven.device.awaitNotified();
        assertEquals(0, notified.queue());
        assertNotSame(Thread.currentThread(), notified.thread());
    }

    @Test
    void aQueueIsServedByOneThreadAtATime() throws Exception {
        Driven driven = drive();
        AtomicInteger inside = new AtomicInteger();
        AtomicBoolean two = new AtomicBoolean();
        AtomicInteger calls = new AtomicInteger();
        driven.device.onNotified(
                queue -> {
                    if (inside.getAndIncrement() != 0) {
                        two.set(true);
                    }
                    Thread.yield();
                    inside.getAndDecrement();
                    calls.getAndIncrement();
                });
        driven.run(0);
        TestDevice.Started started = driven.started(0);
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (calls.get() < 100 && System.nanoTime() - end < 0) {
            driven.transport.notifyQueue(0, 0);
            started.export().schedule(0);
        }
        assertTrue(calls.get() >= 100, "calls: " + calls);
        assertFalse(two.get(), "two threads in one queue");
    }

    @Test
    @Tag("DEV-CORE-002")
    @Tag("DEV-CORE-003")
    void brokenQueueSetsNeedsResetAndNotifies() throws Exception {
        assumeSaid(TransportUnderTest.Unsaid.NEEDS_RESET);
        Driven driven = drive().run(0);
        driven.started(0).export().queueBroken(0, "the test says so");
        Driven.await(driven.config, "configChanged of a device that needs a reset");
        assertNotEquals(0, driven.transport.status() & DeviceStatus.DEVICE_NEEDS_RESET);
        driven.run(0);
        assertEquals(0, driven.transport.status() & DeviceStatus.DEVICE_NEEDS_RESET);
    }

    @Test
    @Tag("DRV-CORE-015")
    @Tag("DRV-MMIO-014")
    @Tag("DEV-CORE-012")
    @Tag("DEV-CORE-013")
    @Tag("DEV-MMIO-010")
    @Tag("DEV-MMIO-012")
    void stoppedQueueCanBeStartedAnewWithOtherValues() throws Exception {
        Driven driven = drive().run(0, 1);
        driven.started(0);
        driven.started(1);
        if (!driven.transport.stopQueue(0)) {
            assertFalse(
                    driven.transport.offered().has(Feature.RING_RESET),
                    "RING_RESET is offered and cannot be done");
            return;
        }
        assertNull(driven.device.queue(0));
        assertTrue(driven.device.queue(1) != null, "the other queue goes on");
        driven.transport.startQueue(0, driven.layout(16));
        assertEquals(16, driven.started(0).layout().size());
        driven.settle(0);
    }

    /** A packed ring has any number of descriptors, and its position two wrap counters. */
    @Test
    void packedQueueIsStartedAtTheBeginningOfTheFirstLap() throws Exception {
        Driven driven = drive(new TestDevice(1, 16).offer(PACKED));
        Features offered = driven.transport.offered();
        assertTrue(offered.has(Feature.RING_PACKED), "carries RING_PACKED, offers " + offered);
        driven.negotiate(offered.and(PACKED));
        boolean odd = !subject.unsaid().contains(TransportUnderTest.Unsaid.ODD_QUEUE_SIZES);
        for (int size : new int[] {odd ? 33 : 32, 1, 64}) {
            driven.transport.startQueue(0, driven.layout(size));
            driven.driverOk();
            QueueLayout layout = driven.started(0).layout();
            assertEquals(size, layout.size());
            int position = layout.nextAvailable();
            assertTrue(position == 0 || position == FIRST_LAP, "position " + position);
            driven.settle(0);
            if (!driven.transport.stopQueue(0)) {
                return;
            }
        }
    }

    @Test
    @Tag("DEV-CORE-009")
    @Tag("DEV-CORE-011")
    void resetReturnsWhenNobodyIsInTheQueue() throws Exception {
        Driven driven = drive();
        CountDownLatch entered = new CountDownLatch(1);
        CountDownLatch leave = new CountDownLatch(1);
        driven.device.onNotified(
                queue -> {
                    entered.countDown();
                    uninterruptibly(leave);
                });
        driven.run(0);
        driven.started(0);
        driven.transport.notifyQueue(0, 0);
        assertTrue(entered.await(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS));
        AtomicBoolean left = new AtomicBoolean();
        AtomicBoolean leftWhenReset = new AtomicBoolean();
        Thread resetter =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        driven.transport.status(0);
                                        leftWhenReset.set(left.get());
                                    } catch (VirtioException e) {
                                        throw new AssertionError(e);
                                    }
                                });
        // Long enough for a reset that does not wait to be over.
        resetter.join(50);
        left.set(true);
        leave.countDown();
        resetter.join(TestDevice.AWAIT_MILLIS);
        assertTrue(leftWhenReset.get(), "reset returned while a thread was in the queue");
    }

    private static void uninterruptibly(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    @Tag("DEV-CORE-009")
    @Tag("DEV-MMIO-005")
    void nothingIsNotifiedOfAfterAReset() throws Exception {
        Driven driven = drive().run(0);
        TestDevice.Started before = driven.started(0);
        driven.transport.status(0);
        driven.used.clear();
        driven.config.clear();
        before.export().interrupt(0);
        before.export().configChanged();
        driven.run(0);
        driven.settle(0);
        assertTrue(driven.used.isEmpty(), "an interrupt from before the reset");
        assertTrue(driven.config.isEmpty(), "a configuration change from before the reset");
    }

    @Test
    void withdrawalReturnsWhenNobodyUsesTheDevice() throws Exception {
        Driven driven = drive();
        CountDownLatch entered = new CountDownLatch(1);
        CountDownLatch leave = new CountDownLatch(1);
        AtomicBoolean left = new AtomicBoolean();
        driven.device.onNotified(
                queue -> {
                    entered.countDown();
                    uninterruptibly(leave);
                    left.set(true);
                });
        driven.run(0);
        driven.started(0);
        driven.transport.notifyQueue(0, 0);
        assertTrue(entered.await(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS));
        AtomicBoolean leftWhenClosed = new AtomicBoolean();
        Thread closer =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    driven.export.close();
                                    leftWhenClosed.set(left.get());
                                });
        closer.join(50);
        leave.countDown();
        closer.join(TestDevice.AWAIT_MILLIS);
        assertTrue(leftWhenClosed.get(), "close returned while a thread was in the queue");
        driven.device.forgetNotified();
        driven.transport.notifyQueue(0, 0);
        assertEquals(0, driven.device.forgetNotified());
    }

    @Test
    void driverMayCloseInItsOwnInterruptHandler() throws Exception {
        Driven driven = drive();
        AtomicBoolean running = new AtomicBoolean();
        CountDownLatch closed = new CountDownLatch(1);
        driven.transport.listen(
                new TestListener() {
                    @Override
                    public void queueUsed(int queue) {
                        if (running.get()) {
                            driven.transport.close();
                            closed.countDown();
                        }
                    }
                });
        driven.device.onNotified(queue -> interrupt(driven, queue));
        driven.run(0);
        running.set(true);
        // Again and again: the queue may not be started yet at a distant device.
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        do {
            driven.transport.notifyQueue(0, 0);
        } while (!closed.await(1, TimeUnit.MILLISECONDS) && System.nanoTime() - end < 0);
        assertEquals(0, closed.getCount(), "close in the handler");
        Driven.await(() -> driven.export.driver() == null, "no driver after close");
    }
}
