package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.Features;
import virtio.linux.FileDescriptor;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;

/** The back-end against what Linux's virtio_uml does, and others do not. */
@Timeout(value = 30, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class OddFrontEndTest {
    private static final long ACKNOWLEDGED = 1L << VhostUser.PROTOCOL_F_REPLY_ACK;

    @TempDir Path folder;
    private List<Integer> before;
    private VhostUserExport export;
    private Connection driver;

    @BeforeEach
    void connect() throws Exception {
        Path socket = folder.resolve("x.sock");
        before = Peers.live();
        export =
                new VhostUserExport(
                        "vhost-user:" + socket, socket, Features.NONE, new RamDevice(), _ -> {});
        driver = new Connection(UnixSocket.connect(socket, 1000));
    }

    @AfterEach
    void nothingIsLeft() {
        driver.close();
        export.close();
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    private void acknowledged(int request, ByteBuffer payload, FileDescriptor... fds)
            throws IOException {
        driver.send(request, VhostUser.NEED_REPLY, payload, 1000, fds);
        try (Message reply = driver.receive(10_000, 1000)) {
            assertEquals(request, reply.request());
            assertEquals(0, reply.u64());
        }
    }

    @Test
    void theAgreementOnAcknowledgementsIsAcknowledged() throws Exception {
        acknowledged(VhostUser.SET_PROTOCOL_FEATURES, Message.u64(ACKNOWLEDGED));
    }

    @Test
    void aSocketWillDoForInterruptsAndForNothingElse() throws Exception {
        acknowledged(VhostUser.SET_PROTOCOL_FEATURES, Message.u64(ACKNOWLEDGED));
        List<UnixSocket> ends = UnixSocket.pair();
        try (UnixSocket mine = ends.get(0);
                UnixSocket theirs = ends.get(1)) {
            acknowledged(VhostUser.SET_VRING_CALL, Message.u64(0), theirs.file());
            driver.send(VhostUser.SET_VRING_KICK, 0, Message.u64(0), 1000, mine.file());
            assertNull(driver.receive(10_000, 1000), "it has hung up");
        }
    }
}
