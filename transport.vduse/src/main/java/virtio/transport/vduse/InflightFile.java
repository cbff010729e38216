package virtio.transport.vduse;

import virtio.api.VirtioException;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;

/**
 * What the queues of a device have in flight, in a file that outlives this process: one region for
 * each queue, of a header and a state for each descriptor (as vhost-user's "Inflight I/O
 * tracking").
 *
 * <p>It lies where a reboot clears it, as that ends the device as well.
 */
final class InflightFile implements AutoCloseable {
    // Those of a packed queue, a split one's are half as large.
    private static final int HEADER_BYTES = 32;
    private static final int STATE_BYTES = 32;
    private static final long ALIGNMENT = 64;

    /** Where a region has its version; 0 is that of one without anything in flight. */
    private static final long VERSION = 8;

    private final Path path;
    private final Mapping mapping;
    private final int queues;
    private final long each;
    private final boolean found;

    private InflightFile(Path path, Mapping mapping, int queues, long each, boolean found) {
        this.path = path;
        this.mapping = mapping;
        this.queues = queues;
        this.each = each;
        this.found = found;
    }

    /**
     * Opens a device's file, or makes it.
     *
     * @param folder made when it is not there
     * @param fresh the device is a new one: what an earlier one of that name left is dropped
     */
    static InflightFile open(Path folder, String name, int queues, int maxSize, boolean fresh)
            throws VirtioException {
        long each = HEADER_BYTES + (long) STATE_BYTES * maxSize + ALIGNMENT - 1 & -ALIGNMENT;
        long bytes = queues * each;
        Path path = folder.resolve("vduse-" + name + ".inflight");
        try {
            Files.createDirectories(folder);
            boolean found = !fresh && Files.isRegularFile(path) && Files.size(path) == bytes;
            if (!found) {
                Files.deleteIfExists(path);
                Files.createFile(
                        path,
                        PosixFilePermissions.asFileAttribute(
                                PosixFilePermissions.fromString("rw-------")));
                try (FileChannel file = FileChannel.open(path, StandardOpenOption.WRITE)) {
                    file.write(ByteBuffer.allocate(1), bytes - 1);
                }
            }
            try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
                Mapping mapping = Mapping.map(file, 0, bytes, true);
                return new InflightFile(path, mapping, queues, each, found);
            }
        } catch (IOException e) {
            throw new VirtioException(
                    "no file to keep what is in flight in: %s".formatted(e.getMessage()), e);
        }
    }

    /** Whether the file of an earlier process was found. */
    boolean found() {
        return found;
    }

    /** The region of a queue. */
    MemorySegment queue(int queue) {
        return mapping.segment().asSlice(queue * each, each);
    }

    /** Forgets what was in flight: the driver has reset the device. */
    void clear() {
        // First: who dies before the rest is cleared leaves nothing that counts.
        for (int queue = 0; queue < queues; queue++) {
            queue(queue).set(ValueLayout.JAVA_SHORT, VERSION, (short) 0);
        }
        VarHandle.releaseFence();
        mapping.segment().fill((byte) 0);
    }

    /** Removes the file: the device is no more. */
    void delete() throws IOException {
        Files.deleteIfExists(path);
    }

    /** Unmaps it; the file stays for the next process. */
    @Override
    public void close() {
        mapping.close();
    }
}
