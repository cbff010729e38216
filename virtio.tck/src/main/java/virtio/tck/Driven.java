package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;

/** Both ends of a transport under test, open, and what the driver end reports. */
final class Driven implements AutoCloseable {
    static final int QUEUE_SIZE = 64;
    private static final int AREA_BYTES = 4096;

    final TransportUnderTest subject;
    final TestDevice device;
    final Export export;
    final Transport transport;
    final DeviceMapping mapping;
    final BlockingQueue<Integer> used = new LinkedBlockingQueue<>();
    final BlockingQueue<Boolean> config = new LinkedBlockingQueue<>();
    final BlockingQueue<VirtioException> gone = new LinkedBlockingQueue<>();
    final AtomicInteger inHandler = new AtomicInteger();
    private final List<CoherentMemory> allocated = new ArrayList<>();

    Driven(TransportUnderTest subject, TestDevice device) throws VirtioException {
        this.subject = subject;
        this.device = device;
        export = subject.exporter().export(subject.address(), device);
        Transport opened;
        try {
            opened = subject.provider().open(subject.address());
        } catch (VirtioException | RuntimeException e) {
            export.close();
            throw e;
        }
        transport = opened;
        mapping = new DeviceMapping(subject.mapOps(), transport.mapToken(0));
        transport.listen(
                new Transport.Listener() {
                    @Override
                    public void queueUsed(int queue) {
                        used.add(queue);
                    }

                    @Override
                    public void configChanged() {
                        config.add(true);
                    }

                    @Override
                    public void gone(VirtioException reason) {
                        gone.add(reason);
                    }
                });
    }

    /** Initialisation up to FEATURES_OK, with all that is offered (virtio 3.1.1). */
    Features negotiate() throws VirtioException {
        // Of the platform's and the ring's own, none: nobody here would keep them.
        Features choice =
                transport
                        .offered()
                        .without(
                                Feature.RING_PACKED,
                                Feature.IN_ORDER,
                                Feature.EVENT_IDX,
                                Feature.NOTIFICATION_DATA);
        negotiate(choice);
        assertEquals(
                DeviceStatus.FEATURES_OK,
                transport.status() & DeviceStatus.FEATURES_OK,
                "FEATURES_OK after accepting " + choice);
        return choice;
    }

    void negotiate(Features choice) throws VirtioException {
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        transport.accept(choice);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK);
    }

    /** A layout in zeroed memory of its own. */
    QueueLayout layout(int size) {
        return new QueueLayout(size, area(), area(), area());
    }

    private long area() {
        CoherentMemory area = mapping.alloc(AREA_BYTES);
        assertNotNull(area, "memory for a queue");
        allocated.add(area);
        return area.mapHandle();
    }

    /** The driver's view of an area of {@link #layout}. */
    MemorySegment memory(long mapHandle) {
        return allocated.stream()
                .filter(area -> area.mapHandle() == mapHandle)
                .findFirst()
                .orElseThrow()
                .segment();
    }

    /** Negotiates, starts the queues and sets DRIVER_OK. */
    Driven run(int... queues) throws VirtioException {
        negotiate();
        for (int queue : queues) {
            transport.startQueue(queue, layout(QUEUE_SIZE));
        }
        driverOk();
        return this;
    }

    void driverOk() throws VirtioException {
        transport.status(
                DeviceStatus.ACKNOWLEDGE
                        | DeviceStatus.DRIVER
                        | DeviceStatus.FEATURES_OK
                        | DeviceStatus.DRIVER_OK);
    }

    /** Waits until the device end has started the queue; a wire may be slower than the call. */
    TestDevice.Started started(int queue) {
        await(() -> device.queue(queue) != null, "queue " + queue + " started at the device");
        return device.queue(queue);
    }

    /** Notifies a queue until the device has seen it and nothing else is under way. */
    void settle(int queue) {
        started(queue);
        transport.notifyQueue(queue, queue);
        while (device.awaitNotified().queue() != queue) {
            // Another queue's, from starting it.
        }
    }

    /** What the device sees at a handle. */
    MemorySegment seen(long mapHandle, long size) {
        long address = started(0).memory().translate(mapHandle, size, true);
        if (address == 0) {
            throw new AssertionError(
                    "the device does not reach %d bytes at %#x".formatted(size, mapHandle));
        }
        return subject.at(address, size);
    }

    static <T> T await(BlockingQueue<T> events, String what) {
        try {
            T event = events.poll(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS);
            if (event == null) {
                throw new AssertionError(
                        "no %s within %d ms".formatted(what, TestDevice.AWAIT_MILLIS));
            }
            return event;
        } catch (InterruptedException e) {
            throw new AssertionError("interrupted while waiting for " + what, e);
        }
    }

    static void await(BooleanSupplier condition, String what) {
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() - end > 0) {
                throw new AssertionError(
                        "not within %d ms: %s".formatted(TestDevice.AWAIT_MILLIS, what));
            }
            Thread.onSpinWait();
        }
    }

    /** Both ends and all memory; the device is reset first where it still can be. */
    @Override
    public void close() {
        try {
            transport.status(0);
        } catch (VirtioException e) {
            // Closed or gone: nothing runs any more.
        }
        allocated.forEach(mapping::free);
        allocated.clear();
        transport.close();
        export.close();
    }
}
