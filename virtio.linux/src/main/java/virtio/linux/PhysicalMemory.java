package virtio.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Huge pages of our own together with where they lie in the machine's memory, for a device that
 * reads and writes there without an IOMMU.
 *
 * <p>Of ordinary pages the kernel moves even locked ones; huge pages stay where they are, unless
 * their memory is taken out of the machine.
 */
public final class PhysicalMemory implements AutoCloseable {
    /** Bytes of a huge page. */
    public static final long PAGE_BYTES = 2 << 20;

    /** Documentation/admin-guide/mm/pagemap.rst: bits 0 to 54 of an entry are the frame number. */
    private static final long FRAME = (1L << 55) - 1;

    private static final long PRESENT = 1L << 63;

    /**
     * A piece that is contiguous in the machine's memory.
     *
     * @param segment where this process sees it
     * @param physicalAddress where a device sees its first byte
     */
    public record Extent(MemorySegment segment, long physicalAddress) {}

    private final SharedMemory shared;
    private final List<Extent> extents;

    private PhysicalMemory(SharedMemory shared, List<Extent> extents) {
        this.shared = shared;
        this.extents = extents;
    }

    /**
     * Takes zeroed huge pages.
     *
     * @param name what /proc shows
     * @param sizeBytes a positive multiple of {@link #PAGE_BYTES}
     * @throws LinuxException ENOMEM when there are not as many huge pages free, EPERM when the
     *     process may not know physical addresses, for which it needs CAP_SYS_ADMIN
     */
    public static PhysicalMemory create(String name, long sizeBytes) throws LinuxException {
        SharedMemory shared = SharedMemory.create(name, sizeBytes, PAGE_BYTES);
        try {
            return new PhysicalMemory(shared, extents(shared.segment()));
        } catch (LinuxException | RuntimeException e) {
            shared.close();
            throw e;
        }
    }

    private static List<Extent> extents(MemorySegment memory) throws LinuxException {
        // The kernel hands pages out from the highest address down: taken from the end, they lie
        // one behind the other more often than not.
        for (long at = memory.byteSize() - PAGE_BYTES; at >= 0; at -= PAGE_BYTES) {
            memory.set(ValueLayout.JAVA_BYTE, at, (byte) 0);
        }
        List<Extent> extents = new ArrayList<>();
        try (FileDescriptor pagemap =
                        FileDescriptor.open(
                                Path.of("/proc/self/pagemap"), FileDescriptor.O_RDONLY);
                Arena arena = Arena.ofConfined()) {
            MemorySegment entry = arena.allocate(ValueLayout.JAVA_LONG);
            long start = 0;
            long first = physicalAddress(pagemap, memory.address(), entry);
            for (long at = PAGE_BYTES; at < memory.byteSize(); at += PAGE_BYTES) {
                long physical = physicalAddress(pagemap, memory.address() + at, entry);
                if (physical != first + at - start) {
                    extents.add(new Extent(memory.asSlice(start, at - start), first));
                    start = at;
                    first = physical;
                }
            }
            extents.add(new Extent(memory.asSlice(start), first));
        }
        return List.copyOf(extents);
    }

    private static long physicalAddress(FileDescriptor pagemap, long address, MemorySegment entry)
            throws LinuxException {
        entry.set(ValueLayout.JAVA_LONG, 0, 0);
        pagemap.pread(entry, address / Memory.PAGE_BYTES * Long.BYTES);
        long bits = entry.get(ValueLayout.JAVA_LONG, 0);
        if ((bits & PRESENT) == 0 || (bits & FRAME) == 0) {
            // Without the right the kernel shows frame number 0.
            throw new LinuxException("read", "frame numbers of " + pagemap.name(), Errno.EPERM);
        }
        return (bits & FRAME) * Memory.PAGE_BYTES;
    }

    /** The pieces, in the order of their addresses in this process. */
    public List<Extent> extents() {
        return extents;
    }

    /** Gives the pages back, as {@link Mapping#close}; no device may be using them. */
    @Override
    public void close() {
        shared.close();
    }
}
