package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.net.NetControl;

import java.util.concurrent.TimeUnit;

/** How often a driver is told of what it has received and sent. */
class NotificationsTest {
    private static final int FOREVER = 100_000_000;
    private FakeCard card;
    private FakeQueue receive;
    private FakeQueue send;

    @BeforeEach
    void open() throws Exception {
        card = new FakeCard("x");
        receive = card.queues[0];
        send = card.queues[1];
    }

    @AfterEach
    void close() {
        card.close();
    }

    private void delay(boolean transmit, int packets, int micros) throws Exception {
        byte[] data = FakeCard.data(8).putInt(packets).putInt(micros).array();
        int command = transmit ? NetControl.NOTF_COAL_TX_SET : NetControl.NOTF_COAL_RX_SET;
        assertTrue(card.command(NetControl.NOTF_COAL, command, data));
        FakeQueue queue = transmit ? send : receive;
        assertTrue(queue.scheduled.tryAcquire(), "looked at once more");
        queue.serve();
    }

    private void packets(int count) throws Exception {
        for (int i = 0; i < count; i++) {
            card.send(new byte[0], new byte[60]);
        }
    }

    @Test
    void atOnceUnlessSomebodyWantsOtherwise() throws Exception {
        packets(5);
        assertEquals(5, receive.notified);
        assertEquals(5, send.notified);
        delay(false, 0, FOREVER);
        delay(true, 3, 0);
        packets(5);
        assertEquals(10, receive.notified);
        assertEquals(10, send.notified);
    }

    @Test
    void afterSoManyPackets() throws Exception {
        delay(false, 15, FOREVER);
        packets(14);
        assertEquals(0, receive.notified);
        assertEquals(14, send.notified, "each way by itself");
        packets(1);
        assertEquals(1, receive.notified);
        packets(14);
        assertEquals(1, receive.notified);
        packets(1);
        assertEquals(2, receive.notified);
        delay(true, 4, FOREVER);
        packets(7);
        assertEquals(31, send.notified);
        packets(1);
        assertEquals(32, send.notified);
    }

    @Test
    void withinABurstAsWell() throws Exception {
        delay(true, 4, FOREVER);
        for (int i = 0; i < 18; i++) {
            send.available.add(new FakeQueue.Buffer(new byte[20 + 60], 0));
        }
        send.serve();
        assertEquals(4, send.notified);
    }

    @ParameterizedTest
    @ValueSource(ints = {100_000, 300_000})
    void afterSoLong(int micros) throws Exception {
        delay(false, 1000, micros);
        long start = System.nanoTime();
        packets(3);
        boolean early = receive.notified != 0;
        long passed = System.nanoTime() - start;
        assertFalse(early && passed < TimeUnit.MICROSECONDS.toNanos(micros), passed + " ns");
        while (receive.notified == 0) {
            assertTrue(receive.scheduled.tryAcquire(10, TimeUnit.SECONDS), "served when due");
            receive.serve();
        }
        assertTrue(System.nanoTime() - start >= TimeUnit.MICROSECONDS.toNanos(micros));
        assertEquals(1, receive.notified);
        // The time counts from the next packet on.
        start = System.nanoTime();
        packets(1);
        while (receive.notified == 1) {
            assertTrue(receive.scheduled.tryAcquire(10, TimeUnit.SECONDS), "served when due");
            receive.serve();
        }
        assertTrue(System.nanoTime() - start >= TimeUnit.MICROSECONDS.toNanos(micros));
    }

    @Test
    void whenTheLimitIsLoweredToWhatWaits() throws Exception {
        delay(true, 15, FOREVER);
        packets(10);
        assertEquals(0, send.notified);
        delay(true, 11, FOREVER);
        assertEquals(0, send.notified);
        delay(true, 8, FOREVER);
        assertEquals(1, send.notified);
        packets(3);
        delay(true, 8, 1);
        assertEquals(2, send.notified);
    }

    @Test
    @Tag("DEV-NET-104")
    void aNewDriverIsToldAtOnce() throws Exception {
        delay(false, 15, FOREVER);
        packets(3);
        assertEquals(0, receive.notified);
        card.backend.queueStopped(receive);
        card.backend.accepted(card.backend.offered());
        receive = new FakeQueue(card.backend, 0);
        card.queues[0] = receive;
        packets(1);
        assertEquals(1, receive.notified);
    }
}
