package virtio.device.net;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;

/**
 * The buffers of one queue pair in one life of its device; used with the pair's lock held.
 *
 * <p>Consumers may hold buffers over a swap: the memory is given back with the last of them.
 */
final class PacketPool {
    /** Bytes of a frame in one buffer, at the usual headroom. */
    static final int DATA_BYTES = 2048;

    /** An odd number of cache lines, so that equal offsets do not share the sets of a cache. */
    static final int SLOT_BYTES = PacketBuffer.HEADROOM + DATA_BYTES;

    final DeviceMapping mapping;
    final Packet[] slots;

    /** All slots: one object for a burst to look at instead of one for each frame. */
    final MemorySegment all;

    private CoherentMemory memory;
    private final int[] free;
    private int freeCount;
    private boolean retired;

    PacketPool(String name, DeviceMapping mapping, int count) throws VirtioException {
        this.mapping = mapping;
        long bytes = (long) count * SLOT_BYTES;
        memory = mapping.alloc(bytes);
        if (memory == null) {
            throw new VirtioException("%s: no room for %d bytes of packets".formatted(name, bytes));
        }
        slots = new Packet[count];
        free = new int[count];
        all = memory.segment();
        for (int i = 0; i < count; i++) {
            slots[i] = new Packet(this, i, memory);
            free[count - 1 - i] = i;
        }
        freeCount = count;
    }

    int free() {
        return freeCount;
    }

    /** An unused buffer; only when there is one. */
    Packet take() {
        return slots[free[--freeCount]];
    }

    void put(Packet packet) {
        packet.state = Packet.FREE;
        free[freeCount++] = packet.id;
        if (retired && freeCount == slots.length) {
            close();
        }
    }

    /** A buffer and all that are chained to it. */
    static void putAll(Packet first) {
        for (Packet p = first; p != null; ) {
            Packet following = p.next;
            p.next = null;
            p.pool.put(p);
            p = following;
        }
    }

    /**
     * Marks an element of a burst and all that is chained to it, so that nothing is in it twice.
     *
     * @throws IllegalArgumentException when it is, or is not the caller's; what is marked by then
     *     is to be {@link #unclaim}ed
     */
    static Packet claim(PacketBuffer buffer, int element) {
        if (!(buffer instanceof Packet first)) {
            throw notHeld(buffer, element);
        }
        for (Packet p = first; p != null; p = p.next) {
            if (p.state != Packet.HELD) {
                throw notHeld(p, element);
            }
            p.state = Packet.CLAIMED;
        }
        return first;
    }

    private static IllegalArgumentException notHeld(PacketBuffer buffer, int element) {
        boolean twice = buffer instanceof Packet p && p.state == Packet.CLAIMED;
        return new IllegalArgumentException(
                "element %d: %s is %s"
                        .formatted(element, buffer, twice ? "given twice" : "not the caller's"));
    }

    /** Leaves elements of a burst to the caller, as far as they are marked. */
    static void unclaim(PacketBuffer[] buffers, int from, int end) {
        for (int i = from; i < end; i++) {
            if (buffers[i] instanceof Packet first) {
                for (Packet p = first; p != null && p.state == Packet.CLAIMED; p = p.next) {
                    p.state = Packet.HELD;
                }
            }
        }
    }

    /** Takes back all that are in that state. */
    void reclaim(byte state) {
        for (Packet packet : slots) {
            if (packet.state == state) {
                packet.next = null;
                put(packet);
            }
        }
    }

    /** Whether the memory was given back. */
    boolean closed() {
        return memory == null;
    }

    /** No buffer is taken any more. */
    void retire() {
        retired = true;
        if (freeCount == slots.length) {
            close();
        }
    }

    /** Gives the memory back; access then throws. Idempotent. */
    void close() {
        if (memory != null) {
            mapping.free(memory);
            memory = null;
        }
    }
}
