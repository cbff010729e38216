package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

import virtio.api.VirtioException;
import virtio.linux.EventFd;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.util.List;

class ConnectionTest {
    private final List<Integer> before = Peers.live();
    private final List<UnixSocket> pair = pair();
    private final Connection here = new Connection(pair.get(0));
    private final Connection there = new Connection(pair.get(1));

    private static List<UnixSocket> pair() {
        try {
            return UnixSocket.pair();
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    @AfterEach
    void nothingIsLeft() {
        here.close();
        there.close();
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    @Test
    void aMessageIsLaidOutAsTheProtocolSays() throws Exception {
        here.send(VhostUser.SET_VRING_NUM, VhostUser.NEED_REPLY, Message.state(3, 256), 1000);
        MemorySegment raw = Message.natively(Message.payload(20));
        assertEquals(20, there.file().read(raw));
        assertArrayEquals(new int[] {8, 9, 8, 3, 256}, raw.toArray(ValueLayout.JAVA_INT));
    }

    @Test
    void payloadAndDescriptorsArrive() throws Exception {
        ByteBuffer largest = Message.payload(VhostUser.MAX_PAYLOAD_BYTES);
        largest.putLong(VhostUser.MAX_PAYLOAD_BYTES - 8, -2L);
        try (EventFd counter = EventFd.create()) {
            here.send(77, VhostUser.REPLY, largest, 1000, counter.file(), counter.file());
            try (Message message = there.receive(1000, 1000)) {
                assertEquals(77, message.request());
                assertTrue(message.isReply());
                assertFalse(message.needsReply());
                assertEquals(-2L, message.payload().getLong(VhostUser.MAX_PAYLOAD_BYTES - 8));
                assertEquals(2, message.fds().size());
                message.expectKind("anon_inode:[eventfd]");
                assertThrows(VirtioException.class, () -> message.expectKind("socket:"));
                assertThrows(VirtioException.class, () -> message.expectFds(1));
                assertThrows(VirtioException.class, message::u64);
                EventFd.of(message.fds().getFirst()).signal();
            }
            assertEquals(1, counter.drain());
        }
    }

    @Test
    void silenceLosesNothingAndAnEndIsNoMessage() throws Exception {
        assertThrows(SocketTimeoutException.class, () -> there.receive(5, 1000));
        here.send(1, 0, null, 1000);
        try (Message message = there.receive(1000, 1000)) {
            assertEquals(0, message.size());
        }
        here.close();
        assertNull(there.receive(1000, 1000));
    }
}
