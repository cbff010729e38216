package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.transport.Transport;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.List;

/** The core's own queues at both ends, over the socket. */
class CoreQueueTest {
    private static final int DRIVEN =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;

    @TempDir Path folder;
    private final RamDevice device = new RamDevice();

    private static final class Nobody implements Transport.Listener {
        @Override
        public void queueUsed(int queue) {}

        @Override
        public void configChanged() {}

        @Override
        public void gone(VirtioException reason) {}
    }

    static List<Features> rings() {
        Features split = Features.of(Feature.VERSION_1, Feature.INDIRECT_DESC, Feature.EVENT_IDX);
        return List.of(
                split,
                split.with(Feature.IN_ORDER),
                split.with(Feature.RING_PACKED),
                split.with(Feature.RING_PACKED, Feature.IN_ORDER));
    }

    @ParameterizedTest
    @MethodSource("rings")
    void requestsGoThroughAResetOfTheirQueue(Features features) throws Exception {
        List<Integer> before = Peers.live();
        device.alsoOffered = Features.of(Feature.RING_PACKED, Feature.IN_ORDER);
        // Of any number.
        int size = features.has(Feature.RING_PACKED) ? 63 : 64;
        Path socket = folder.resolve("x.sock");
        try (VhostUserExport _ = new VhostUserExport("x", socket, Features.NONE, device, _ -> {});
                VhostUserTransport transport =
                        new VhostUserTransport(
                                new VhostUserProvider.Device(
                                        "x", socket, 0, 1 << 20, 4096, 10_000))) {
            transport.listen(new Nobody());
            transport.accept(features);
            transport.status(DRIVEN);
            DeviceMapping mapping = new DeviceMapping(new VhostUserMapOps(), transport.mapToken(0));
            DriverEnd queue =
                    DriverEnd.create(
                            0,
                            new QueueRequest("q", size, null),
                            size,
                            features,
                            mapping,
                            transport,
                            (broken, reason) -> {});
            transport.startQueue(0, queue.layout());
            transport.status(DRIVEN | DeviceStatus.DRIVER_OK);
            // An odd number of requests, so that the ring stands somewhere within a lap.
            drive(queue, 333);
            assertTrue(transport.stopQueue(0));
            transport.startQueue(0, queue.layout());
            Peers.await("the queue", () -> device.running() == 1);
            transport.stopQueue(0);
            queue.close();
            transport.status(0);
            assertEquals(0, device.running());
        }
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    private static void drive(Virtqueue queue, int requests) {
        MemorySegment header = MemorySegment.ofArray(new byte[16]);
        MemorySegment data = MemorySegment.ofArray(new byte[512]);
        MemorySegment status = MemorySegment.ofArray(new byte[1]);
        ScatterList buffers = new ScatterList(3);
        for (int i = 0; i < requests; i++) {
            boolean write = i % 2 == 0;
            header.set(ValueLayout.JAVA_INT_UNALIGNED, 0, write ? 1 : 0);
            header.set(ValueLayout.JAVA_LONG_UNALIGNED, 8, i / 2);
            data.fill((byte) (write ? i / 2 : -1));
            status.fill((byte) -1);
            buffers.clear().out(header);
            (write ? buffers.out(data) : buffers.in(data)).in(status);
            assertTrue(queue.add(buffers, i));
            assertTrue(queue.kick());
            long token = queue.get();
            for (long end = System.nanoTime() + 10_000_000_000L;
                    token == Virtqueue.NONE && System.nanoTime() < end;
                    token = queue.get()) {
                Thread.onSpinWait();
            }
            assertNull(queue.broken());
            assertEquals(i, token);
            assertEquals(0, status.get(ValueLayout.JAVA_BYTE, 0));
            assertEquals((byte) (i / 2), data.get(ValueLayout.JAVA_BYTE, 511));
        }
    }
}
