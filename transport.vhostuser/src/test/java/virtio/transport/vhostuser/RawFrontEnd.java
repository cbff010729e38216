package virtio.transport.vhostuser;

import virtio.api.Feature;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.file.Path;

/** A front-end that sends what it likes. */
final class RawFrontEnd implements AutoCloseable {
    private static final long FEATURES =
            1L << Feature.VERSION_1 | 1L << VhostUser.F_PROTOCOL_FEATURES;

    final UnixSocket raw;
    final Connection connection;

    RawFrontEnd(Path socket) throws IOException {
        raw = UnixSocket.connect(socket, 1000);
        connection = new Connection(raw);
    }

    void send(int request, ByteBuffer payload, FileDescriptor... fds) throws IOException {
        connection.send(request, 0, payload, 1000, fds);
    }

    void bytes(int... words) throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            raw.send(arena.allocateFrom(ValueLayout.JAVA_INT, words), 1000);
        }
    }

    /** Shares memory; the region's address is 0x10000 on both sides. */
    void share(SharedMemory memory) throws IOException {
        send(VhostUser.ADD_MEM_REG, region(0x10000, 65536, 0x10000, 0), memory.file());
    }

    /** Waits until the back-end has hung up. */
    void awaitEnd() throws IOException {
        try {
            for (Message reply = receive(); reply != null; reply = receive()) {
                reply.close();
            }
        } catch (LinuxException e) {
            // Reset, as it did not read all that was sent.
        }
    }

    Message receive() throws IOException {
        return connection.receive(10_000, 1000);
    }

    @Override
    public void close() {
        connection.close();
    }

    /** Sets up a ring in a file of its own and notifies. */
    void startRing(FileDescriptor file, EventFd kick) throws IOException {
        prepareRing(file, kick);
        kick.signal();
    }

    /** All of a ring but the kick that starts it. */
    void prepareRing(FileDescriptor file, EventFd kick) throws IOException {
        send(VhostUser.SET_FEATURES, Message.u64(FEATURES));
        send(VhostUser.ADD_MEM_REG, region(0x10000, 65536, 0x10000, 0), file);
        send(VhostUser.SET_VRING_NUM, Message.state(0, 16));
        send(VhostUser.SET_VRING_ADDR, addr(0, 0x10000));
        send(VhostUser.SET_VRING_KICK, Message.u64(0), kick.file());
        send(VhostUser.SET_VRING_ENABLE, Message.state(0, 1));
    }

    static ByteBuffer region(long guest, long size, long user, long offset) {
        ByteBuffer region = Message.payload(VhostUser.SINGLE_REGION_BYTES);
        region.putLong(0).putLong(guest).putLong(size).putLong(user).putLong(offset);
        return region;
    }

    static ByteBuffer table(int count, long... words) {
        ByteBuffer table = Message.payload(VhostUser.TABLE_HEADER_BYTES + 8 * words.length);
        table.putInt(count).putInt(0);
        for (long word : words) {
            table.putLong(word);
        }
        return table;
    }

    static ByteBuffer addr(int queue, long at) {
        ByteBuffer addr = Message.payload(VhostUser.ADDR_BYTES);
        return addr.putInt(queue).putInt(0).putLong(at).putLong(at + 1024).putLong(at + 256);
    }

    static ByteBuffer inflight(long bytes, long offset, int queues, int size) {
        ByteBuffer inflight = Message.payload(VhostUser.INFLIGHT_BYTES);
        inflight.putLong(bytes).putLong(offset);
        return inflight.putShort((short) queues).putShort((short) size);
    }
}
