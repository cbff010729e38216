package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;

/** What a front-end has shared: regions sorted by guest address, disjoint; immutable. */
final class MemoryTable {
    /** Most regions; as many as recent QEMU offers. */
    static final int MAX_REGIONS = 509;

    static final MemoryTable EMPTY = new MemoryTable(List.of());

    /**
     * A part of a front-end's memory.
     *
     * @param guest its address in descriptors
     * @param user its address in ring addresses
     * @param offset where it starts in the file
     * @param mapping the whole file: a part could not be unmapped again on huge pages of unknown
     *     size
     */
    record Region(long guest, long size, long user, long offset, Mapping mapping) {
        /** Maps a region description at the buffer's position. */
        static Region map(ByteBuffer from, FileDescriptor file) throws VirtioException {
            long guest = from.getLong();
            long size = from.getLong();
            long user = from.getLong();
            long offset = from.getLong();
            String what =
                    "region of %#x bytes at guest address %#x, user address %#x, offset %#x"
                            .formatted(size, guest, user, offset);
            if (size <= 0 || guest < 0 || user < 0 || offset < 0) {
                throw new VirtioException(what + ": none of them may be that large, or no bytes");
            }
            if (guest > Long.MAX_VALUE - size
                    || user > Long.MAX_VALUE - size
                    || offset > Long.MAX_VALUE - size) {
                throw new VirtioException(what + ": its end is no address");
            }
            try {
                long bytes = file.sizeBytes();
                if (offset + size > bytes) {
                    throw new VirtioException("%s: its file has %#x".formatted(what, bytes));
                }
                return new Region(guest, size, user, offset, Mapping.map(file, 0, bytes, true));
            } catch (LinuxException e) {
                throw new VirtioException(what + ": " + e.getMessage(), e);
            }
        }

        /** Where its first byte lies in this process. */
        long host() {
            return mapping.segment().address() + offset;
        }

        private static boolean meet(long a, long aSize, long b, long bSize) {
            return a < b + bSize && b < a + aSize;
        }

        private boolean overlaps(Region other) {
            return meet(guest, size, other.guest, other.size)
                    || meet(user, size, other.user, other.size);
        }
    }

    private final List<Region> regions;
    private final long[] guests;
    private final long[] sizes;
    private final long[] hosts;

    private MemoryTable(List<Region> sorted) {
        regions = sorted;
        guests = sorted.stream().mapToLong(Region::guest).toArray();
        sizes = sorted.stream().mapToLong(Region::size).toArray();
        hosts = sorted.stream().mapToLong(Region::host).toArray();
    }

    boolean isEmpty() {
        return regions.isEmpty();
    }

    /** With one region more, which stays the caller's when it is refused. */
    MemoryTable with(Region added) throws VirtioException {
        if (regions.size() >= MAX_REGIONS) {
            throw new VirtioException(
                    "%d regions, limit is %d".formatted(regions.size() + 1, MAX_REGIONS));
        }
        for (Region region : regions) {
            if (region.overlaps(added)) {
                throw new VirtioException(
                        ("region of %#x bytes at guest address %#x, user address %#x overlaps that"
                                        + " of %#x at %#x, %#x")
                                .formatted(
                                        added.size,
                                        added.guest,
                                        added.user,
                                        region.size,
                                        region.guest,
                                        region.user));
            }
        }
        List<Region> more = new ArrayList<>(regions);
        more.add(added);
        more.sort(Comparator.comparingLong(Region::guest));
        return new MemoryTable(List.copyOf(more));
    }

    /** The region that is exactly there, or an error. */
    Region find(long guest, long size, long user) throws VirtioException {
        for (Region region : regions) {
            if (region.guest == guest && region.size == size && region.user == user) {
                return region;
            }
        }
        throw new VirtioException(
                "no region of %#x bytes at guest address %#x, user address %#x"
                        .formatted(size, guest, user));
    }

    MemoryTable without(Region removed) {
        return new MemoryTable(regions.stream().filter(region -> region != removed).toList());
    }

    /** The guest address of a user address, by which rings are named; or an error. */
    long guest(long user) throws VirtioException {
        for (Region region : regions) {
            if (user >= region.user && user - region.user < region.size) {
                return user - region.user + region.guest;
            }
        }
        throw new VirtioException("user address %#x is in no region".formatted(user));
    }

    /** Index of the region with that guest address, or -1. */
    private int index(long guest) {
        int at = Arrays.binarySearch(guests, guest);
        int index = at >= 0 ? at : -at - 2;
        return index >= 0 && guest - guests[index] < sizes[index] ? index : -1;
    }

    /** Unmaps everything; nothing may use it any more. */
    void unmap() {
        regions.forEach(region -> region.mapping().close());
    }

    /** The view of one queue's thread, which remembers where it found the last address. */
    static final class View implements DriverMemory {
        private volatile MemoryTable table;
        private int last;

        View(MemoryTable table) {
            this.table = table;
        }

        /** More memory; what was there stays. */
        void grow(MemoryTable grown) {
            table = grown;
        }

        @Override
        public long translate(long mapHandle, long length, boolean write) {
            MemoryTable now = table;
            int index = last;
            if (index < now.guests.length) {
                long at = mapHandle - now.guests[index];
                if (at >= 0 && length >= 0 && length <= now.sizes[index] - at) {
                    return now.hosts[index] + at;
                }
            }
            index = now.index(mapHandle);
            if (index < 0) {
                return FAULT;
            }
            last = index;
            long at = mapHandle - now.guests[index];
            return length >= 0 && length <= now.sizes[index] - at ? now.hosts[index] + at : FAULT;
        }

        @Override
        public long reach(long mapHandle, boolean write) {
            MemoryTable now = table;
            int index = now.index(mapHandle);
            return index < 0 ? 0 : now.sizes[index] - (mapHandle - now.guests[index]);
        }
    }
}
