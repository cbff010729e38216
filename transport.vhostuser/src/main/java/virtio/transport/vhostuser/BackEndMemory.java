package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;
import virtio.linux.Memory;
import virtio.linux.SharedMemory;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;

/**
 * What a front-end has shared with the back-end: its memory, and the region in which queues keep
 * what is in flight.
 *
 * <p>Used by the session's thread. Memory is taken away from stopped rings only.
 */
final class BackEndMemory implements AutoCloseable {
    /** Sends a reply with a descriptor. */
    interface Reply {
        void send(Message to, ByteBuffer payload, FileDescriptor... fds) throws IOException;
    }

    private static final long INFLIGHT_ALIGNMENT = 64;

    /** Descriptors that there is room for at least, whatever is asked. */
    private static final int INFLIGHT_SIZE = 1024;

    private MemoryTable table = MemoryTable.EMPTY;
    private Mapping inflight;
    private long inflightOffset;
    private int inflightQueues;

    /** Bytes for each queue: all the room there is, divided. */
    private long inflightEach;

    MemoryTable table() {
        return table;
    }

    /** SET_MEM_TABLE: these regions instead of all there are. */
    void setTable(Message message, BackEndRings rings) throws VirtioException {
        ByteBuffer payload = message.payload();
        int count = message.size() < VhostUser.TABLE_HEADER_BYTES ? -1 : payload.getInt();
        if (count < 0 || count > VhostUser.MAX_TABLE_REGIONS) {
            throw new VirtioException(
                    "SET_MEM_TABLE with %d regions in %d bytes, limit is %d"
                            .formatted(count, message.size(), VhostUser.MAX_TABLE_REGIONS));
        }
        if (message.size() < VhostUser.TABLE_HEADER_BYTES + VhostUser.REGION_BYTES * count) {
            message.expect(VhostUser.TABLE_HEADER_BYTES + VhostUser.REGION_BYTES * count);
        }
        message.expectFds(count);
        payload.getInt();
        MemoryTable next = MemoryTable.EMPTY;
        try {
            for (int i = 0; i < count; i++) {
                next = with(next, MemoryTable.Region.map(payload, message.fds().get(i)));
            }
        } catch (VirtioException e) {
            next.unmap();
            throw e;
        }
        rings.stopAll();
        table.unmap();
        table = next;
        rings.startAll();
    }

    private static MemoryTable with(MemoryTable table, MemoryTable.Region region)
            throws VirtioException {
        try {
            return table.with(region);
        } catch (VirtioException e) {
            region.mapping().close();
            throw e;
        }
    }

    /** ADD_MEM_REG: one region more, seen by running rings at once. */
    void addRegion(Message message, BackEndRings rings) throws VirtioException {
        message.expect(VhostUser.SINGLE_REGION_BYTES);
        message.expectFds(1);
        message.payload().getLong();
        table = with(table, MemoryTable.Region.map(message.payload(), message.fds().getFirst()));
        rings.grow(table);
    }

    /** REM_MEM_REG: one region less; some front-ends send a descriptor, which is not needed. */
    void removeRegion(Message message, BackEndRings rings) throws VirtioException {
        message.expect(VhostUser.SINGLE_REGION_BYTES);
        if (message.fds().size() > 1) {
            message.expectFds(0);
        }
        ByteBuffer payload = message.payload();
        MemoryTable.Region region =
                table.find(payload.getLong(8), payload.getLong(16), payload.getLong(24));
        rings.stopAll();
        table = table.without(region);
        region.mapping().close();
        rings.startAll();
    }

    /** Bytes for a queue: a header and a state for each descriptor (Inflight I/O tracking). */
    private static long inflightBytes(int size, boolean packed) {
        long bytes = packed ? 32 + 32L * size : 16 + 16L * size;
        return (bytes + INFLIGHT_ALIGNMENT - 1) & -INFLIGHT_ALIGNMENT;
    }

    /** GET_INFLIGHT_FD: a fresh region for the front-end to keep. */
    void getInflight(Message message, BackEndRings rings, Reply reply) throws IOException {
        expectInflight(message);
        int queues = Short.toUnsignedInt(message.payload().getShort(16));
        int size = Short.toUnsignedInt(message.payload().getShort(18));
        checkInflight(message, queues, size, rings.count());
        // QEMU asks for 128 and then runs rings of 256 and 1024.
        long bytes = queues * inflightBytes(Math.max(size, INFLIGHT_SIZE), rings.isPacked());
        long pages = (bytes + Memory.PAGE_BYTES - 1) & -Memory.PAGE_BYTES;
        try (SharedMemory region = SharedMemory.create("virtio-inflight", pages)) {
            ByteBuffer payload = Message.payload(message.size());
            payload.putLong(0, bytes);
            payload.putShort(16, (short) queues).putShort(18, (short) size);
            reply.send(message, payload, region.file());
        }
    }

    /** SET_INFLIGHT_FD: the region to use, of this life or of an earlier one. */
    void setInflight(Message message, BackEndRings rings) throws VirtioException {
        expectInflight(message);
        message.expectFds(1);
        ByteBuffer payload = message.payload();
        long bytes = payload.getLong(0);
        long offset = payload.getLong(8);
        int queues = Short.toUnsignedInt(payload.getShort(16));
        int size = Short.toUnsignedInt(payload.getShort(18));
        checkInflight(message, queues, size, rings.count());
        if (bytes < queues * inflightBytes(size, rings.isPacked())
                || offset < 0
                || offset % Long.BYTES != 0
                || offset > Long.MAX_VALUE - bytes) {
            throw new VirtioException(
                    "SET_INFLIGHT_FD of %d bytes at offset %d, %d queues of %d need %d"
                            .formatted(
                                    bytes,
                                    offset,
                                    queues,
                                    size,
                                    queues * inflightBytes(size, rings.isPacked())));
        }
        if (rings.isAnyRunning()) {
            throw new VirtioException("SET_INFLIGHT_FD while a queue runs");
        }
        closeInflight();
        FileDescriptor file = message.fds().getFirst();
        try {
            long fileBytes = file.sizeBytes();
            if (offset + bytes > fileBytes) {
                throw new VirtioException(
                        "SET_INFLIGHT_FD of %d bytes at offset %d, its file has %d"
                                .formatted(bytes, offset, fileBytes));
            }
            // All of it, as a region of memory.
            inflight = Mapping.map(file, 0, fileBytes, true);
        } catch (LinuxException e) {
            throw new VirtioException("SET_INFLIGHT_FD: " + e.getMessage(), e);
        }
        inflightOffset = offset;
        inflightQueues = queues;
        inflightEach = bytes / queues & -INFLIGHT_ALIGNMENT;
    }

    private static void expectInflight(Message message) throws VirtioException {
        if (message.size() != VhostUser.PADDED_INFLIGHT_BYTES) {
            message.expect(VhostUser.INFLIGHT_BYTES);
        }
    }

    private static void checkInflight(Message message, int queues, int size, int count)
            throws VirtioException {
        if (queues == 0 || queues > count || size == 0) {
            throw new VirtioException(
                    "%s for %d queues of %d, there are %d queues"
                            .formatted(VhostUser.name(message.request()), queues, size, count));
        }
    }

    /** Where a queue keeps what is in flight; null for nowhere. */
    MemorySegment inflight(BackEndRing ring, boolean packed) {
        if (inflight == null
                || ring.index >= inflightQueues
                || inflightBytes(ring.size, packed) > inflightEach) {
            return null;
        }
        return inflight.segment().asSlice(inflightOffset + ring.index * inflightEach, inflightEach);
    }

    private void closeInflight() {
        if (inflight != null) {
            inflight.close();
            inflight = null;
        }
    }

    /** Unmaps everything; no ring runs any more. */
    @Override
    public void close() {
        table.unmap();
        table = MemoryTable.EMPTY;
        closeInflight();
    }
}
