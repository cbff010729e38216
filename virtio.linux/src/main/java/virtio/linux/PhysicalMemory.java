package virtio.linux;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

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
            return new PhysicalMemory(shared, extents(shared));
        } catch (LinuxException | RuntimeException e) {
            shared.close();
            throw e;
        }
    }

    /**
     * Huge pages that whoever asks first gets; 0 when that cannot be told.
     *
     * @param root the root of the file system
     */
    public static long freePages(Path root) {
        return number(root, "free_hugepages") - number(root, "resv_hugepages");
    }

    /**
     * What to do for so many huge pages to be free, as a sentence for people.
     *
     * @param root the root of the file system
     */
    public static String lacking(Path root, long pageCount) {
        long free = freePages(root);
        // The kernel is told how many there shall be, not how many more.
        long shall = number(root, "nr_hugepages") + Math.max(0, pageCount - free);
        return "huge pages: %d needed, %d free; reserve more with: echo %d > %s"
                .formatted(pageCount, free, shall, hugePages(root).resolve("nr_hugepages"));
    }

    private static long number(Path root, String name) {
        try {
            return Long.parseLong(Files.readString(hugePages(root).resolve(name)).strip());
        } catch (IOException | NumberFormatException e) {
            return 0;
        }
    }

    private static Path hugePages(Path root) {
        return root.resolve("sys/kernel/mm/hugepages/hugepages-%dkB".formatted(PAGE_BYTES >> 10));
    }

    private static List<Extent> extents(SharedMemory shared) throws LinuxException {
        MemorySegment memory = shared.segment();
        long[] found = physicalAddresses(memory);
        // The kernel hands pages out in any order: in theirs, most lie one behind the other.
        int[] order =
                IntStream.range(0, found.length)
                        .boxed()
                        .sorted(Comparator.comparingLong(page -> found[page]))
                        .mapToInt(Integer::intValue)
                        .toArray();
        shared.order(order, PAGE_BYTES);
        List<Extent> extents = new ArrayList<>();
        int start = 0;
        for (int page = 1; page <= order.length; page++) {
            if (page == order.length || found[order[page]] != found[order[page - 1]] + PAGE_BYTES) {
                extents.add(
                        new Extent(
                                memory.asSlice(start * PAGE_BYTES, (page - start) * PAGE_BYTES),
                                found[order[start]]));
                start = page;
            }
        }
        return List.copyOf(extents);
    }

    /** Where its pages lie, which this takes. */
    private static long[] physicalAddresses(MemorySegment memory) throws LinuxException {
        long[] found = new long[(int) (memory.byteSize() / PAGE_BYTES)];
        try (FileDescriptor pagemap =
                        FileDescriptor.open(
                                Path.of("/proc/self/pagemap"), FileDescriptor.O_RDONLY);
                Arena arena = Arena.ofConfined()) {
            MemorySegment entry = arena.allocate(ValueLayout.JAVA_LONG);
            for (int page = 0; page < found.length; page++) {
                memory.set(ValueLayout.JAVA_BYTE, page * PAGE_BYTES, (byte) 0);
                long address = memory.address() + page * PAGE_BYTES;
                found[page] = physicalAddress(pagemap, address, entry);
            }
        }
        return found;
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

    /** The pieces, in the order of their addresses, here and in the machine. */
    public List<Extent> extents() {
        return extents;
    }

    /** Gives the pages back, as {@link Mapping#close}; no device may be using them. */
    @Override
    public void close() {
        shared.close();
    }
}
