package virtio.backend.net;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Frames with their headers, on the way to one receive queue: several may put, one takes.
 *
 * <pre>
 * 0        8                               multiple of 8
 * | length | virtio_net_hdr | frame | free | length | ...
 * </pre>
 */
final class FrameRing {
    /** Over fifteen of the largest frames, or half a thousand of the usual. */
    private static final int BYTES = 1 << 20;

    private static final int LENGTH_BYTES = 8;

    /** In place of a length: the next frame is at the beginning. */
    private static final long WRAP = -1;

    private static final ValueLayout.OfLong LENGTH = ValueLayout.JAVA_LONG;

    private final MemorySegment memory = Arena.ofAuto().allocate(BYTES, LENGTH_BYTES);

    /** Positions count on for ever. */
    private volatile long head;

    private volatile long tail;

    /** Puts a frame; false when there is no room. */
    synchronized boolean put(Frame frame) {
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
        memory.set(LENGTH, offset, frame.length);
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
        long length = memory.get(LENGTH, at & BYTES - 1);
        if (length == WRAP) {
            head = at + BYTES - (at & BYTES - 1);
            length = memory.get(LENGTH, 0);
        }
        return (int) length;
    }

    /** Where the next frame's header lies in {@link #memory}, once {@link #nextLength} says one. */
    long next() {
        return (head & BYTES - 1) + LENGTH_BYTES;
    }

    MemorySegment memory() {
        return memory;
    }

    /** Takes the next frame off. */
    void remove() {
        long bytes = Frame.HEADER + (long) nextLength();
        head += LENGTH_BYTES + (bytes + LENGTH_BYTES - 1 & -LENGTH_BYTES);
    }

    /** Forgets what is there; by who takes. */
    void clear() {
        head = tail;
    }
}
