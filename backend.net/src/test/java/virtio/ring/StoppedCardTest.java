package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.map.IdentityMapOps;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.backend.net.LoopbackProvider;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.Proxy;

/**
 * A card of the core's whose receive queue is stopped and goes on, as vhost-user front-ends have
 * it.
 */
class StoppedCardTest {
    private static final int RECEIVE = 0;
    private static final int TRANSMIT = 1;
    private static final int SIZE = 4;
    private static final int BUFFER_BYTES = 1526;

    private final IdentityMapOps.Token token = IdentityMapOps.token(1 << 16, 1 << 16);
    private final DeviceMapping mapping = new DeviceMapping(new IdentityMapOps(), token);
    private final MemorySegment memory = Arena.ofAuto().allocate(1 << 16);
    private final ScatterList buffer = new ScatterList(1);
    private final Transport transport =
            (Transport)
                    Proxy.newProxyInstance(
                            getClass().getClassLoader(),
                            new Class<?>[] {Transport.class},
                            (self, method, args) -> null);

    /** The driver's memory is ours. */
    private final DriverMemory ours =
            new DriverMemory() {
                @Override
                public long translate(long mapHandle, long length, boolean write) {
                    return mapHandle;
                }

                @Override
                public long reach(long mapHandle, boolean write) {
                    return Long.MAX_VALUE - mapHandle;
                }
            };

    private int interrupts;
    private ExportedBackend device;
    private DriverEnd receive;
    private DriverEnd transmit;

    private final Export export =
            new Export() {
                @Override
                public String driver() {
                    return null;
                }

                @Override
                public void interrupt(int queue) {
                    interrupts += queue == RECEIVE ? 1 : 0;
                }

                @Override
                public void configChanged() {}

                @Override
                public void schedule(int queue) {
                    device.queueNotified(queue);
                }

                @Override
                public void queueBroken(int queue, String reason) {
                    throw new AssertionError(reason);
                }

                @Override
                public void close() {}
            };

    private DriverEnd queue(int index, Features features) throws Exception {
        DriverEnd queue =
                DriverEnd.create(
                        index,
                        new QueueRequest("q" + index, SIZE, null),
                        SIZE,
                        features,
                        mapping,
                        transport,
                        (broken, reason) -> {});
        device.startQueue(index, queue.layout(), ours, export);
        return queue;
    }

    @AfterEach
    void stop() throws Exception {
        device.reset();
        receive.close();
        transmit.close();
        assertEquals(0, token.live());
        token.close();
    }

    private void post(int token) {
        long at = (long) token * 4096;
        assertTrue(receive.add(buffer.clear().in(memory, at, BUFFER_BYTES), token));
        receive.kick();
        device.queueNotified(RECEIVE);
    }

    private void send(int frameBytes) {
        assertTrue(
                transmit.add(buffer.clear().out(memory, 1 << 15, NetHeader.BYTES + frameBytes), 0));
        transmit.kick();
        device.queueNotified(TRANSMIT);
        assertEquals(0, transmit.get());
    }

    @ParameterizedTest
    @ValueSource(ints = {0, Feature.RING_PACKED, Feature.IN_ORDER})
    void buffersTakenForAFrameThatDidNotComeAreGivenBack(int layout) throws Exception {
        Features features = Features.of(Feature.VERSION_1, NetFeature.MRG_RXBUF);
        if (layout != 0) {
            features = features.with(layout);
        }
        device = new ExportedBackend("loopback:", new LoopbackProvider().open(",mtu=9000"));
        assertTrue(device.accept(features));
        receive = queue(RECEIVE, features);
        transmit = queue(TRANSMIT, features);
        for (int i = 0; i < SIZE; i++) {
            post(i);
        }
        // It takes six buffers.
        send(9000);
        assertEquals(Virtqueue.NONE, receive.get());
        assertTrue(receive.enableCallback());
        int before = interrupts;
        QueueLayout first = receive.layout();
        QueueLayout again =
                new QueueLayout(
                        SIZE,
                        first.descriptorArea(),
                        first.driverArea(),
                        first.deviceArea(),
                        device.stopQueue(RECEIVE),
                        null);
        for (int i = 0; i < SIZE; i++) {
            assertEquals(i, receive.get());
            assertEquals(0, receive.usedLength());
        }
        assertEquals(before + 1, interrupts);
        device.startQueue(RECEIVE, again, ours, export);
        for (int i = 0; i < SIZE; i++) {
            post(i);
            send(60);
            assertEquals(i, receive.get());
            assertEquals(NetHeader.BYTES + 60, receive.usedLength());
        }
        assertNull(receive.broken());
    }
}
