package virtio.ring.queue;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;

import java.util.ArrayList;
import java.util.List;

/**
 * Indirect descriptor tables in coherent memory, by powers of two from 8 to 1024 descriptors.
 *
 * <p>Grows to what was in flight at most and is then reused without allocating.
 */
final class IndirectTables {
    private static final int MIN_SHIFT = 3;
    private static final int CLASSES = 8;
    private static final long CHUNK_BYTES = 16384;

    /** A table with the private copy of what it says. */
    static final class Table {
        final long address;
        final long mapHandle;
        final long[] handles;
        final long[] elements;
        int count;
        private Table next;

        private Table(long address, long mapHandle, int capacity) {
            this.address = address;
            this.mapHandle = mapHandle;
            handles = new long[capacity];
            elements = new long[capacity];
        }
    }

    private final DeviceMapping mapping;
    private final Table[] free = new Table[CLASSES];
    private final List<CoherentMemory> chunks = new ArrayList<>();

    IndirectTables(DeviceMapping mapping) {
        this.mapping = mapping;
    }

    /** A table for that many descriptors, at most 1024; null when there is no memory. */
    Table take(int count) {
        int kind = kind(count);
        Table table = free[kind];
        if (table == null) {
            table = grow(kind);
            if (table == null) {
                return null;
            }
        }
        free[kind] = table.next;
        table.count = count;
        return table;
    }

    void give(Table table) {
        int kind = kind(table.handles.length);
        table.next = free[kind];
        free[kind] = table;
    }

    void close() {
        chunks.forEach(mapping::free);
        chunks.clear();
    }

    private static int kind(int count) {
        return Math.max(0, 32 - Integer.numberOfLeadingZeros(count - 1) - MIN_SHIFT);
    }

    private Table grow(int kind) {
        int capacity = 1 << kind + MIN_SHIFT;
        long bytes = (long) capacity * Descriptor.BYTES;
        CoherentMemory chunk = mapping.alloc(Math.max(bytes, CHUNK_BYTES));
        if (chunk == null) {
            return null;
        }
        chunks.add(chunk);
        for (long at = 0; at < chunk.segment().byteSize(); at += bytes) {
            Table table =
                    new Table(chunk.segment().address() + at, chunk.mapHandle() + at, capacity);
            table.next = free[kind];
            free[kind] = table;
        }
        return free[kind];
    }
}
