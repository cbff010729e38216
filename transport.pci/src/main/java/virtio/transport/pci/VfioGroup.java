package virtio.transport.pci;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.api.VirtioException;
import virtio.linux.Errno;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/**
 * An IOMMU group with a container of its own: what its devices may reach, no device of another
 * group does. Without an IOMMU it is a way to the device and no more.
 *
 * <p>The kernel opens a group once, so devices of one group share it; it is closed with the last
 * one. Thread-safe.
 */
final class VfioGroup {
    private static final Path VFIO = Path.of("/dev/vfio");

    /** Mappings that one container may have, 65535 if not said. */
    private static final Path ENTRY_LIMIT =
            Path.of("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");

    private static final String NO_IOMMU = "noiommu-";
    private static final int INFO_BYTES = 4096;

    private static final Map<String, VfioGroup> OPEN = new HashMap<>();

    private final String name;
    private final FileDescriptor container;
    private final FileDescriptor group;
    private final IovaSpace space = new IovaSpace();

    /** Devices that are open; guarded by {@link #OPEN}. */
    private int users = 1;

    private VfioGroup(String name, FileDescriptor container, FileDescriptor group) {
        this.name = name;
        this.container = container;
        this.group = group;
    }

    /** The device file of a group, with an IOMMU or without. */
    static Path file(String number) {
        Path without = VFIO.resolve(NO_IOMMU + number);
        return Files.exists(without) ? without : VFIO.resolve(number);
    }

    /**
     * Opens a group, or joins those who have.
     *
     * @param number the group's, from sysfs
     */
    static VfioGroup open(String where, String number) throws VirtioException {
        synchronized (OPEN) {
            String name = file(number).getFileName().toString();
            VfioGroup known = OPEN.get(name);
            if (known != null) {
                known.users++;
                return known;
            }
            VfioGroup opened = openNew(where, name);
            OPEN.put(name, opened);
            return opened;
        }
    }

    private static VfioGroup openNew(String where, String name) throws VirtioException {
        FileDescriptor container = file(where, VFIO.resolve("vfio"));
        FileDescriptor group = null;
        try {
            group = file(where, VFIO.resolve(name));
            VfioGroup made = new VfioGroup(name, container, group);
            made.setUp(where);
            return made;
        } catch (VirtioException | RuntimeException e) {
            if (group != null) {
                group.close();
            }
            container.close();
            throw e;
        }
    }

    private static FileDescriptor file(String where, Path path) throws VirtioException {
        try {
            return FileDescriptor.open(path, FileDescriptor.O_RDWR);
        } catch (LinuxException e) {
            String what =
                    switch (e.errno()) {
                        case Errno.EBUSY -> "end the other process that has it";
                        case Errno.ENOENT, Errno.ENODEV -> "run modprobe vfio-pci";
                        case Errno.EACCES -> "give this user the right to read and write it";
                        case Errno.EPERM -> "run with CAP_SYS_RAWIO, as there is no IOMMU";
                        default -> "see dmesg";
                    };
            throw failed(where, e, what);
        }
    }

    private static VirtioException failed(String where, LinuxException e, String what) {
        return new VirtioException("%s: %s: %s".formatted(where, e.getMessage(), what), e);
    }

    /** Whether there is an IOMMU between its devices and memory. */
    boolean translates() {
        return !name.startsWith(NO_IOMMU);
    }

    private void setUp(String where) throws VirtioException {
        int kind = translates() ? Vfio.TYPE1_V2 : Vfio.NOIOMMU;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment status = arena.allocate(8, 4);
            status.set(JAVA_INT, 0, 8);
            group.ioctl(Vfio.GROUP_GET_STATUS, status);
            if ((status.get(JAVA_INT, 4) & Vfio.GROUP_VIABLE) == 0) {
                throw new VirtioException(
                        "%s shares IOMMU group %s with devices of other drivers: unbind those of "
                                        .formatted(where, name)
                                + "/sys/kernel/iommu_groups/"
                                + name
                                + "/devices");
            }
            if (container.ioctl(Vfio.CHECK_EXTENSION, kind) != 1) {
                throw new VirtioException(
                        translates()
                                ? where
                                        + " needs VFIO's IOMMU driver: run modprobe"
                                        + " vfio_iommu_type1"
                                : where
                                        + " has no IOMMU: load vfio with"
                                        + " enable_unsafe_noiommu_mode=1");
            }
            MemorySegment fd = arena.allocate(4, 4);
            fd.set(JAVA_INT, 0, container.fd());
            group.ioctl(Vfio.GROUP_SET_CONTAINER, fd);
            container.ioctl(Vfio.SET_IOMMU, kind);
            if (translates()) {
                readSpace(arena);
            }
        } catch (LinuxException e) {
            String what =
                    e.errno() == Errno.EPERM && translates()
                            ? "the IOMMU does not remap interrupts: load vfio_iommu_type1 with"
                                    + " allow_unsafe_interrupts=1 if its devices are trusted"
                            : "see dmesg";
            throw failed(where, e, what);
        }
    }

    private void readSpace(Arena arena) throws LinuxException {
        MemorySegment info = info(arena);
        int capabilities = 0;
        int at = (info.get(JAVA_INT, 4) & Vfio.INFO_CAPS) == 0 ? 0 : info.get(JAVA_INT, 16);
        while (at > 0 && at <= INFO_BYTES - 16 && capabilities++ < INFO_BYTES / 16) {
            if (info.get(JAVA_SHORT, at) == Vfio.CAP_IOVA_RANGE) {
                ValueLayout.OfLong number = ValueLayout.JAVA_LONG_UNALIGNED;
                int ranges = info.get(JAVA_INT, at + 8);
                for (int i = 0; i < ranges && at + 32 + 16 * i <= INFO_BYTES; i++) {
                    long start = info.get(number, at + 16 + 16 * i);
                    space.add(start, info.get(number, at + 24 + 16 * i));
                }
                return;
            }
            at = info.get(JAVA_INT, at + 4);
        }
        // Kernels before 5.4 do not say; the interrupts of x86 begin at 0xfee00000.
        space.add(0, 0xfedf_ffffL);
    }

    private MemorySegment info(Arena arena) throws LinuxException {
        MemorySegment info = arena.allocate(INFO_BYTES, 8);
        info.set(JAVA_INT, 0, INFO_BYTES);
        container.ioctl(Vfio.IOMMU_GET_INFO, info);
        return info;
    }

    /**
     * A device of the group.
     *
     * @param function its address, as {@code 0000:00:04.0}
     */
    FileDescriptor device(String where, String function) throws VirtioException {
        try (Arena arena = Arena.ofConfined()) {
            int fd = group.ioctl(Vfio.GROUP_GET_DEVICE_FD, arena.allocateFrom(function));
            return FileDescriptor.of(fd, "vfio device " + function);
        } catch (LinuxException e) {
            throw failed(where, e, "is it bound to vfio-pci, and nobody else's?");
        }
    }

    /**
     * Lets the group's devices reach memory, which is locked meanwhile.
     *
     * @return where they see it
     */
    long map(String where, MemorySegment memory, long alignment) throws VirtioException {
        long bytes = memory.byteSize();
        long iova = space.take(bytes, alignment);
        if (iova < 0) {
            throw new VirtioException(
                    "%s: no %d bytes in a row among the addresses %s that its IOMMU has free"
                            .formatted(where, bytes, space));
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment map = arena.allocate(32, 8);
            map.set(JAVA_INT, 0, 32);
            map.set(JAVA_INT, 4, Vfio.READ_WRITE);
            map.set(JAVA_LONG, 8, memory.address());
            map.set(JAVA_LONG, 16, iova);
            map.set(JAVA_LONG, 24, bytes);
            container.ioctl(Vfio.IOMMU_MAP_DMA, map);
            return iova;
        } catch (LinuxException e) {
            space.give(iova, bytes);
            throw failed(where, e, limit(e.errno(), bytes));
        }
    }

    private static String limit(int errno, long bytes) {
        return switch (errno) {
            case Errno.ENOMEM ->
                    "%d MiB are to be locked, the limit is %s: raise it (ulimit -l), or lower"
                                    .formatted(bytes >> 20, lockLimit())
                            + " coherentMebibytes and bounceMebibytes of virtio.transport.pci";
            case Errno.ENOSPC ->
                    "all %s mappings that vfio_iommu_type1 allows are in use: raise its limit in %s"
                            .formatted(entryLimit(), ENTRY_LIMIT);
            default -> "see dmesg";
        };
    }

    private static String entryLimit() {
        try {
            return Files.readString(ENTRY_LIMIT).strip();
        } catch (IOException e) {
            return "the";
        }
    }

    /** As the kernel shows it: {@code 8388608 bytes}. */
    private static String lockLimit() {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self/limits"))) {
                if (line.startsWith("Max locked memory")) {
                    return line.substring(17).strip().split(" +")[0] + " bytes";
                }
            }
        } catch (IOException e) {
            // Not to be known, then.
        }
        return "unknown";
    }

    /** Ends what {@link #map} began: no device reaches the memory any more. */
    void unmap(long iova, long bytes) throws LinuxException {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment unmap = arena.allocate(24, 8);
            unmap.set(JAVA_INT, 0, 24);
            unmap.set(JAVA_LONG, 8, iova);
            unmap.set(JAVA_LONG, 16, bytes);
            container.ioctl(Vfio.IOMMU_UNMAP_DMA, unmap);
        }
        space.give(iova, bytes);
    }

    /** A device less; closes the group with the last one. */
    void release() {
        synchronized (OPEN) {
            if (--users == 0) {
                OPEN.remove(name);
                group.close();
                container.close();
            }
        }
    }
}
