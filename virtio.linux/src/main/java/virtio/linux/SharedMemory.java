package virtio.linux;

import java.lang.foreign.MemorySegment;

/**
 * Memory of our own behind a descriptor that can be given to others (memfd_create(2)), zeroed.
 *
 * <p>Its size is sealed: nobody who gets the descriptor can shrink or grow it.
 */
public final class SharedMemory implements AutoCloseable {
    private static final int MFD_CLOEXEC = 1;
    private static final int MFD_ALLOW_SEALING = 2;
    private static final int MFD_HUGETLB = 4;
    private static final int MFD_HUGE_SHIFT = 26;

    private final FileDescriptor file;
    private final Mapping mapping;

    private SharedMemory(FileDescriptor file, Mapping mapping) {
        this.file = file;
        this.mapping = mapping;
    }

    /** Ordinary pages; otherwise as {@link #create(String, long, long)}. */
    public static SharedMemory create(String name, long sizeBytes) throws LinuxException {
        return create(name, sizeBytes, Memory.PAGE_BYTES);
    }

    /**
     * Makes and maps memory.
     *
     * @param name what /proc shows, at most 249 bytes
     * @param sizeBytes a positive multiple of {@code pageBytes}
     * @param pageBytes {@link Memory#PAGE_BYTES}, or the size of a kind of huge pages that the
     *     machine has, as 2 MiB
     * @throws LinuxException ENOMEM when there are not as many huge pages free, ENODEV when there
     *     is no such kind
     */
    public static SharedMemory create(String name, long sizeBytes, long pageBytes)
            throws LinuxException {
        if (pageBytes < Memory.PAGE_BYTES || Long.bitCount(pageBytes) != 1) {
            throw new IllegalArgumentException(
                    "page of %d bytes: a power of two from %d"
                            .formatted(pageBytes, Memory.PAGE_BYTES));
        }
        if (sizeBytes <= 0 || sizeBytes % pageBytes != 0) {
            throw new IllegalArgumentException(
                    "memory of %d bytes: a positive multiple of the page, %d"
                            .formatted(sizeBytes, pageBytes));
        }
        int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        if (pageBytes != Memory.PAGE_BYTES) {
            flags |= MFD_HUGETLB | Long.numberOfTrailingZeros(pageBytes) << MFD_HUGE_SHIFT;
        }
        String what = "memfd:" + name;
        FileDescriptor file =
                FileDescriptor.own(LibC.memfdCreate(name, flags), "memfd_create", what);
        try {
            int fd = file.fd();
            FileDescriptor.check(LibC.ftruncate(fd, sizeBytes), "ftruncate", what);
            FileDescriptor.check(LibC.fcntl(fd, LibC.F_ADD_SEALS, LibC.F_SEALS), "seal", what);
            return new SharedMemory(file, Mapping.map(file, 0, sizeBytes, true));
        } catch (LinuxException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** The descriptor to give away; it stays this object's. */
    public FileDescriptor file() {
        return file;
    }

    /** The memory, as of {@link Mapping#segment}. */
    public MemorySegment segment() {
        return mapping.segment();
    }

    /** Shows the pages of the file in that order from now on: of each place, the number there. */
    void order(int[] pages, long pageBytes) throws LinuxException {
        for (int place = 0; place < pages.length; place++) {
            if (pages[place] != place) {
                mapping.show(place * pageBytes, file, pages[place] * pageBytes, pageBytes);
            }
        }
    }

    /** Unmaps and closes, as {@link Mapping#close}. */
    @Override
    public void close() {
        mapping.close();
        file.close();
    }

    @Override
    public String toString() {
        return mapping.toString();
    }
}
