package virtio.device.blk;

import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * A virtqueue with what is in flight on it, from DRIVER_OK to the next freeze; used with the lock
 * of the request queue held.
 *
 * <p>Every part of a request that the device has takes a slot of coherent memory, so that header
 * and status need no mapping:
 *
 * <pre>
 * 0        16                  32       33     36          56     64
 * | header | discard segment   | status | free | device id | free |
 * </pre>
 */
final class Slots {
    static final int SLOT_BYTES = 64;
    private static final int RANGE = 16;
    private static final int STATUS = 32;
    private static final int ID = 36;

    /** No device answers with it, so a status that was never written is noticed. */
    private static final byte NO_STATUS = (byte) 0xFF;

    private static final int HEADER_AND_STATUS = 2;
    private static final int MAX_ELEMENTS = 256;
    private static final int BURST = 64;

    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN);

    final Virtqueue vq;
    final BlkLimits limits;
    private final MemorySegment memory;
    private final long memoryHandle;
    private final long elementMax;
    private final long dataMax;
    private final int[] free;
    private int freeCount;
    private final BlkQueue[] users;
    private final int[] requests;
    private final ScatterList elements = new ScatterList(MAX_ELEMENTS + HEADER_AND_STATUS);
    private final long[] usedSlots = new long[BURST];
    private final int[] usedLengths = new int[BURST];

    /**
     * With everything free.
     *
     * @param memory {@link #SLOT_BYTES} for each descriptor
     */
    Slots(Virtqueue vq, CoherentMemory memory, BlkLimits limits) {
        this.vq = vq;
        this.limits = limits;
        this.memory = memory.segment();
        memoryHandle = memory.mapHandle();
        elementMax = elementMax(vq, limits);
        dataMax = elementsMax(vq, limits) * elementMax / limits.blockSize() * limits.blockSize();
        users = new BlkQueue[vq.size()];
        requests = new int[vq.size()];
        free = new int[vq.size()];
        for (int i = 0; i < free.length; i++) {
            free[i] = free.length - 1 - i;
        }
        freeCount = free.length;
    }

    /** Refuses a virtqueue that cannot take a request of a single block. */
    static void check(Virtqueue vq, BlkLimits limits) throws VirtioException {
        int elements = elementsMax(vq, limits);
        long bytes = elementMax(vq, limits);
        if (elements < 1 || elements * bytes < limits.blockSize()) {
            throw new VirtioException(
                    ("a block of %d bytes does not fit a request of %d elements of %d bytes in a"
                                    + " queue of %d")
                            .formatted(
                                    limits.blockSize(), Math.max(elements, 0), bytes, vq.size()));
        }
    }

    private static int elementsMax(Virtqueue vq, BlkLimits limits) {
        // A chain is never longer than the ring (2.7.5.3.1).
        int most = Math.min(vq.maxElements(), vq.size()) - HEADER_AND_STATUS;
        return Math.min(most, Math.min(limits.segMax(), MAX_ELEMENTS));
    }

    private static long elementMax(Virtqueue vq, BlkLimits limits) {
        long most = Math.min(limits.sizeMax(), vq.mapping().maxMappingSize());
        return most < limits.blockSize() ? most : most / limits.blockSize() * limits.blockSize();
    }

    boolean empty() {
        return freeCount == free.length;
    }

    boolean full() {
        return freeCount == 0;
    }

    /** Takes what the device is done with, and says so to the requests' users. */
    void harvest() {
        int count;
        do {
            count = vq.get(usedSlots, usedLengths);
            for (int i = 0; i < count; i++) {
                int slot = (int) usedSlots[i];
                BlkQueue user = users[slot];
                users[slot] = null;
                free[freeCount++] = slot;
                byte status = memory.get(BYTE, (long) slot * SLOT_BYTES + STATUS);
                user.partDone(requests[slot], result(status));
            }
        } while (count == BURST);
    }

    private static int result(byte status) {
        return switch (status) {
            case BlockRequest.S_OK -> BlockQueue.OK;
            case BlockRequest.S_UNSUPP -> BlockQueue.UNSUPPORTED;
            default -> BlockQueue.IO_ERROR;
        };
    }

    /** Gives back to the requests what the device has not answered. */
    void recall() {
        for (int slot = 0; slot < users.length; slot++) {
            if (users[slot] != null) {
                users[slot].recall(requests[slot]);
            }
        }
    }

    /** Whether the device knows such requests. */
    boolean known(int type) {
        return switch (type) {
            case BlockRequest.FLUSH -> limits.flush();
            case BlockRequest.DISCARD -> limits.discard();
            case BlockRequest.WRITE_ZEROES -> limits.writeZeroes();
            default -> true;
        };
    }

    /** Most bytes of one part of a request. */
    long most(int type, long offset) {
        return switch (type) {
            case BlockRequest.FLUSH -> 0;
            case BlockRequest.WRITE_ZEROES -> limits.maxWriteZeroesBytes();
            case BlockRequest.DISCARD -> {
                // Parts end where the device likes discards to begin.
                long most = limits.maxDiscardBytes();
                long tail = (offset + most) % limits.discardAlignmentBytes();
                yield tail < most ? most - tail : most;
            }
            default -> dataMax;
        };
    }

    /**
     * Adds the next part of a request to the ring; not to be called when {@link #full}.
     *
     * @return false when ring or mapping have no room, or the queue is broken
     */
    boolean add(BlkQueue user, int request, int type, long offset, long length) {
        int slot = free[freeCount - 1];
        long at = (long) slot * SLOT_BYTES;
        boolean data = type == BlockRequest.IN || type == BlockRequest.OUT;
        // The type with the reserved 32 bits above it.
        memory.set(LONG, at + BlockRequest.TYPE, type);
        memory.set(LONG, at + BlockRequest.SECTOR, data ? offset / BlockRequest.SECTOR_BYTES : 0);
        memory.set(BYTE, at + STATUS, NO_STATUS);
        elements.clear();
        elements.outMapped(memoryHandle + at, BlockRequest.HEADER_BYTES);
        if (data) {
            addData(user.segment(request), type, user.sent(request), length);
        } else if (type != BlockRequest.FLUSH) {
            long sectors = length / BlockRequest.SECTOR_BYTES;
            memory.set(LONG, at + RANGE, offset / BlockRequest.SECTOR_BYTES);
            memory.set(
                    LONG,
                    at + RANGE + BlockRequest.SEGMENT_SECTORS,
                    sectors | (long) user.flags(request) << 32);
            elements.outMapped(memoryHandle + at + RANGE, BlockRequest.SEGMENT_BYTES);
        }
        elements.inMapped(memoryHandle + at + STATUS, 1);
        if (!vq.add(elements, slot)) {
            return false;
        }
        freeCount--;
        users[slot] = user;
        requests[slot] = request;
        user.partSent(request, length);
        return true;
    }

    private void addData(MemorySegment data, int type, long from, long length) {
        for (long done = 0; done < length; ) {
            long piece = Math.min(length - done, elementMax);
            if (type == BlockRequest.IN) {
                elements.in(data, from + done, piece);
            } else {
                elements.out(data, from + done, piece);
            }
            done += piece;
        }
    }

    /**
     * Asks a virtqueue that nobody else uses yet for the device's id; waits by polling.
     *
     * @param memory at least {@link #SLOT_BYTES}
     * @return the id without its padding; empty when the device has none
     */
    static String readId(Virtqueue vq, CoherentMemory memory, long timeoutMillis)
            throws VirtioException {
        MemorySegment slot = memory.segment();
        slot.set(LONG, BlockRequest.TYPE, BlockRequest.GET_ID);
        slot.set(LONG, BlockRequest.SECTOR, 0);
        slot.set(BYTE, STATUS, NO_STATUS);
        ScatterList list = new ScatterList(3);
        list.outMapped(memory.mapHandle(), BlockRequest.HEADER_BYTES);
        list.inMapped(memory.mapHandle() + ID, BlockRequest.ID_BYTES);
        list.inMapped(memory.mapHandle() + STATUS, 1);
        vq.disableCallback();
        boolean added = vq.add(list, 0) && vq.kick();
        long start = System.nanoTime();
        while (added && vq.get() == Virtqueue.NONE && vq.broken() == null) {
            if (System.nanoTime() - start > TimeUnit.MILLISECONDS.toNanos(timeoutMillis)) {
                throw new VirtioException(
                        "the device did not answer GET_ID within %d ms".formatted(timeoutMillis));
            }
            // Consumers are paused for as long as this takes at a swap. Who sleeps for a moment is
            // woken in time on a busy machine, who yields waits until all others have had a turn.
            LockSupport.parkNanos(20_000);
        }
        if (!added || vq.broken() != null) {
            throw new VirtioException("GET_ID failed: %s".formatted(vq.broken()));
        }
        if (slot.get(BYTE, STATUS) != BlockRequest.S_OK) {
            return "";
        }
        StringBuilder id = new StringBuilder();
        for (int i = 0; i < BlockRequest.ID_BYTES && slot.get(BYTE, ID + i) != 0; i++) {
            int c = slot.get(BYTE, ID + i) & 0xFF;
            // It is shown to people, on terminals among others.
            id.append(c < 0x20 || c > 0x7E ? '?' : (char) c);
        }
        return id.toString().strip();
    }
}
