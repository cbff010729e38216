package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.linux.FileDescriptor;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * One message as received.
 *
 * @param payload little-endian, from position 0 to its limit
 * @param fds what came along, owned by whoever takes them out; {@link #close} closes the rest
 */
record Message(int request, int flags, ByteBuffer payload, List<FileDescriptor> fds)
        implements AutoCloseable {

    /** A little-endian buffer of that many bytes, to fill a payload into. */
    static ByteBuffer payload(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** A payload of one 64-bit number. */
    static ByteBuffer u64(long value) {
        return payload(Long.BYTES).putLong(0, value);
    }

    /** A copy where system calls can read it. */
    static MemorySegment natively(ByteBuffer payload) {
        MemorySegment from = MemorySegment.ofBuffer(payload.duplicate().position(0));
        return Arena.ofAuto().allocate(from.byteSize(), 8).copyFrom(from);
    }

    /** A vring state description. */
    static ByteBuffer state(int index, int num) {
        return payload(VhostUser.STATE_BYTES).putInt(0, index).putInt(4, num);
    }

    /** Bytes of payload. */
    int size() {
        return payload.limit();
    }

    boolean isReply() {
        return (flags & VhostUser.REPLY) != 0;
    }

    boolean needsReply() {
        return (flags & VhostUser.NEED_REPLY) != 0;
    }

    /** The payload as one 64-bit number. */
    long u64() throws VirtioException {
        expect(Long.BYTES);
        return payload.getLong(0);
    }

    /** Refuses a payload of another size. */
    void expect(int bytes) throws VirtioException {
        if (size() != bytes) {
            throw new VirtioException(
                    "%s with a payload of %d bytes, %d are due"
                            .formatted(VhostUser.name(request), size(), bytes));
        }
    }

    /** Refuses more or fewer descriptors. */
    void expectFds(int count) throws VirtioException {
        if (fds.size() != count) {
            throw new VirtioException(
                    "%s with %d descriptors, %d are due"
                            .formatted(VhostUser.name(request), fds.size(), count));
        }
    }

    /**
     * Refuses a first descriptor of another kind, on which a write could do anything.
     *
     * @param kinds how /proc names those that will do
     */
    void expectKind(String... kinds) throws VirtioException {
        String found;
        try {
            int fd = fds.getFirst().fd();
            found = Files.readSymbolicLink(Path.of("/proc/self/fd/" + fd)).toString();
        } catch (IOException e) {
            found = e.toString();
        }
        String is = found;
        if (Arrays.stream(kinds).noneMatch(is::startsWith)) {
            throw new VirtioException(
                    "%s with a descriptor of %s, one of %s is due"
                            .formatted(VhostUser.name(request), is, String.join(" or ", kinds)));
        }
    }

    /** Closes the descriptors that nobody took. */
    @Override
    public void close() {
        fds.forEach(FileDescriptor::close);
        fds.clear();
    }
}
