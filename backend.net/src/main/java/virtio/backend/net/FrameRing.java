package virtio.backend.net;

import virtio.api.net.NetHeader;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * Frames with their headers, on the way to one receive queue: several may put, one takes.
 *
 * <pre>
 * 0        3        4      8                               multiple of 8
 * | length | report | hash | virtio_net_hdr | frame | free | length | ...
 * </pre>
 */
final class FrameRing {
    /** Over fifteen of the largest frames, or half a thousand of the usual. */
    private static final int BYTES = 1 << 20;

    private static final int LENGTH_BYTES = 8;
    private static final int LENGTH_BITS = 24;
    private static final int LENGTH_MASK = (1 << LENGTH_BITS) - 1;

    /** In place of a length: the next frame is at the beginning. */
    private static final long WRAP = -1;

    private static final ValueLayout.OfLong LENGTH = ValueLayout.JAVA_LONG;
    private static final ValueLayout.OfInt LITTLE32 =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private final MemorySegment memory = Arena.ofAuto().allocate(BYTES, LENGTH_BYTES);

    /** Positions count on for ever. */
    private volatile long head;

    private volatile long tail;

    /** Of the frame that is taken next. */
    private int length;

    /** Puts a frame with its hash; false when there is no room. */
    synchronized boolean put(Frame frame, long hash) {
        long bytes = Frame.HEADER + (long) frame.length;
        long need = LENGTH_BYTES + (bytes + LENGTH_BYTES - 1 & -LENGTH_BYTES);
        long at = tail;
        long offset = at & BYTES - 1;
        long skipped = offset + need > BYTES ? BYTES - offset : 0;
        if (at + skipped + need - head > BYTES) {
            return false;
        }
        if (skipped > 0) {
            memory.set(LENGTH, offset, WRAP);
            at += skipped;
            offset = 0;
        }
        long word = hash << Integer.SIZE | (long) ReceiveHash.report(hash) << LENGTH_BITS;
        memory.set(LENGTH, offset, word | frame.length);
        MemorySegment.copy(frame.memory, 0, memory, offset + LENGTH_BYTES, bytes);
        tail = at + need;
        return true;
    }

    /** Bytes of the next frame, its header not included; -1 when there is none. */
    int nextLength() {
        long at = head;
        if (at == tail) {
            return -1;
        }
        long word = memory.get(LENGTH, at & BYTES - 1);
        if (word == WRAP) {
            head = at + BYTES - (at & BYTES - 1);
            word = memory.get(LENGTH, 0);
        }
        length = (int) word & LENGTH_MASK;
        return length;
    }

    /** Where the next frame's header lies in {@link #memory}, once {@link #nextLength} says one. */
    long next() {
        return (head & BYTES - 1) + LENGTH_BYTES;
    }

    /**
     * Where the next frame's header lies once the hash is part of it (5.1.6.4.4); instead of {@link
     * #next}, and once for each frame: it takes the place of the frame's length.
     */
    long nextWithHash() {
        long at = head & BYTES - 1;
        long word = memory.get(LENGTH, at);
        // As far forward as the header gets longer: the frame itself stays where it is.
        MemorySegment.copy(memory, at + LENGTH_BYTES, memory, at, Frame.HEADER);
        memory.set(LITTLE32, at + NetHeader.HASH_VALUE, (int) (word >>> Integer.SIZE));
        int report = (int) word >>> LENGTH_BITS;
        memory.set(LITTLE32, at + NetHeader.HASH_TYPE, report);
        return at;
    }

    MemorySegment memory() {
        return memory;
    }

    /** Takes the next frame off. */
    void remove() {
        long bytes = Frame.HEADER + (long) length;
        head += LENGTH_BYTES + (bytes + LENGTH_BYTES - 1 & -LENGTH_BYTES);
    }

    /** Forgets what is there; by who takes. */
    void clear() {
        head = tail;
    }
}
