package virtio.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A part of a file in memory, shared with everybody who maps it (mmap(2), MAP_SHARED).
 *
 * <p>The descriptor may be closed while the mapping lives.
 *
 * <p>When somebody else shrinks the file below the mapping, an access to the lost part ends in an
 * {@link InternalError} of the JVM, not of the process; memory that is made here is sealed against
 * that.
 */
public final class Mapping implements AutoCloseable {
    private static final AtomicInteger LIVE = new AtomicInteger();

    private final String name;
    private final long address;
    private final long length;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment segment;
    private boolean closed;

    @SuppressWarnings("restricted")
    private Mapping(String name, long address, long length, boolean writable) {
        this.name = name;
        this.address = address;
        this.length = length;
        MemorySegment all = MemorySegment.ofAddress(address).reinterpret(length, arena, null);
        // A store to a read-only page would end the process; a read-only segment throws instead.
        this.segment = writable ? all : all.asReadOnly();
        LIVE.incrementAndGet();
    }

    /** How many mappings are in place: a test's measure of leaks. */
    public static int live() {
        return LIVE.get();
    }

    /**
     * Maps {@code length} bytes from {@code offset}.
     *
     * @param offset a multiple of the file's page size
     * @param length in bytes, at least 1, and within the file unless it is a device; of a file on
     *     huge pages a multiple of their size, as the kernel maps the rest of one but does not
     *     unmap a part of one: it stays then
     * @throws LinuxException EINVAL for an odd offset or for a part outside the file, EACCES for a
     *     writable mapping of a file opened for reading, ENOMEM when huge pages are lacking
     */
    public static Mapping map(FileDescriptor file, long offset, long length, boolean writable)
            throws LinuxException {
        String what =
                "%s, %d bytes at offset %d%s"
                        .formatted(file.name(), length, offset, writable ? "" : ", read-only");
        if (length <= 0 || offset < 0 || offset > Long.MAX_VALUE - length) {
            throw new IllegalArgumentException("mmap " + what + ": no range");
        }
        int fd = file.acquire("mmap");
        try {
            long size = FileDescriptor.check(LibC.mappableSize(fd), "statx", file.name());
            // Pages beyond the end of a file can be mapped, but not touched.
            if (offset + length > size) {
                throw new LinuxException("mmap", what + ", the file having " + size, Errno.EINVAL);
            }
            int protection = LibC.PROT_READ | (writable ? LibC.PROT_WRITE : 0);
            long address = LibC.mmap(0, length, protection, LibC.MAP_SHARED, fd, offset);
            FileDescriptor.check(address, "mmap", what);
            return new Mapping(file.name(), address, length, writable);
        } finally {
            file.release();
        }
    }

    /**
     * The memory, all of it, usable from every thread until {@link #close}; read-only when the
     * mapping is.
     */
    public MemorySegment segment() {
        return segment;
    }

    /**
     * Shows another part of the file at {@code at}, in place of what is there; nobody may be using
     * that.
     *
     * @param at a multiple of the file's page size, as the others
     */
    synchronized void show(long at, FileDescriptor file, long offset, long bytes)
            throws LinuxException {
        if (closed) {
            throw new IllegalStateException(name + " is unmapped");
        }
        int fd = file.acquire("mmap");
        try {
            int protection = LibC.PROT_READ | LibC.PROT_WRITE;
            int flags = LibC.MAP_SHARED | LibC.MAP_FIXED;
            long shown = LibC.mmap(address + at, bytes, protection, flags, fd, offset);
            FileDescriptor.check(shown, "mmap", "%s at %d of %s".formatted(name, at, this));
        } finally {
            file.release();
        }
    }

    /**
     * Keeps the pages resident until the mapping is closed (mlock(2)).
     *
     * @throws LinuxException ENOMEM or EPERM when the process's limit is too low
     */
    public synchronized void lock() throws LinuxException {
        if (closed) {
            throw new IllegalStateException(name + " is unmapped");
        }
        FileDescriptor.check(LibC.mlock(address, length), "mlock", name);
    }

    /**
     * Unmaps; again is no error, and waits for a close under way.
     *
     * <p>Accesses through {@link #segment} then fail with IllegalStateException; for those through
     * {@link Memory} the owner sees to it that there are none left.
     *
     * @throws IllegalStateException when a system call is using the segment; the mapping stays, and
     *     close can be called again
     */
    @Override
    public synchronized void close() {
        if (!closed) {
            arena.close();
            closed = true;
            if (LibC.munmap(address, length) == 0) {
                LIVE.decrementAndGet();
            }
        }
    }

    @Override
    public String toString() {
        return "%s at 0x%x, %d bytes".formatted(name, address, length);
    }
}
