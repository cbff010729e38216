package virtio.api;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The elements of one buffer, device-readable ones before device-writable ones (virtio 2.6.4.2).
 *
 * <p>Made once and reused: adding an element allocates nothing up to the capacity. An element is a
 * segment, which the queue maps and unmaps, or a handle that the caller mapped and unmaps itself
 * (premapped). Not thread-safe.
 */
public final class ScatterList {
    // The first element lies apart: most buffers have no other.
    private MemorySegment segment;
    private long offset;
    private int length;

    // The others, from index 1.
    private final MemorySegment[] segments;
    private final long[] offsets;
    private final int[] lengths;
    private int count;
    private int outCount;

    /** Elements that are segments: where there are none, there is none to forget. */
    private int segmentCount;

    /** With room for that many elements. */
    public ScatterList(int capacity) {
        segments = new MemorySegment[capacity];
        offsets = new long[capacity];
        lengths = new int[capacity];
    }

    /** Empties the list, forgetting the segments. */
    public ScatterList clear() {
        segment = null;
        if (segmentCount != 0) {
            Arrays.fill(segments, 1, count, null);
            segmentCount = 0;
        }
        count = 0;
        outCount = 0;
        return this;
    }

    /** A whole segment that the device reads. */
    public ScatterList out(MemorySegment segment) {
        return out(segment, 0, segment.byteSize());
    }

    /** Part of a segment that the device reads. */
    public ScatterList out(MemorySegment segment, long offset, long length) {
        element(segment, checked(segment, offset, length), length, true);
        return this;
    }

    /** Premapped memory that the device reads. */
    public ScatterList outMapped(long mapHandle, long length) {
        element(null, mapHandle, length, true);
        return this;
    }

    /** A whole segment that the device writes. */
    public ScatterList in(MemorySegment segment) {
        return in(segment, 0, segment.byteSize());
    }

    /** Part of a segment that the device writes. */
    public ScatterList in(MemorySegment segment, long offset, long length) {
        element(segment, checked(segment, offset, length), length, false);
        return this;
    }

    /** Premapped memory that the device writes. */
    public ScatterList inMapped(long mapHandle, long length) {
        element(null, mapHandle, length, false);
        return this;
    }

    /** Number of elements. */
    public int count() {
        return count;
    }

    /** Number of elements that the device reads; they come first. */
    public int outCount() {
        return outCount;
    }

    /** The segment of an element, null for a premapped one. */
    public MemorySegment segment(int element) {
        return element == 0 ? segment : segments[element];
    }

    /** The offset in the segment, or the handle of a premapped element. */
    public long offset(int element) {
        return element == 0 ? offset : offsets[element];
    }

    /** Bytes of an element, 1 or more. */
    public int length(int element) {
        return element == 0 ? length : lengths[element];
    }

    private static long checked(MemorySegment segment, long offset, long length) {
        if (offset < 0 || length > segment.byteSize() - offset) {
            throw new IndexOutOfBoundsException(
                    "element of %d bytes at %d in a segment of %d bytes"
                            .formatted(length, offset, segment.byteSize()));
        }
        return offset;
    }

    private void element(MemorySegment segment, long offset, long length, boolean out) {
        if (length <= 0 || length > Integer.MAX_VALUE) {
            throw new IllegalArgumentException(
                    "element of %d bytes, limits are 1 and %d"
                            .formatted(length, Integer.MAX_VALUE));
        }
        if (count == segments.length) {
            throw new IllegalStateException(
                    "element %d in a list with room for %d".formatted(count + 1, segments.length));
        }
        if (out) {
            if (outCount != count) {
                throw new IllegalStateException(
                        "device-readable element %d after a device-writable one".formatted(count));
            }
            outCount++;
        }
        if (count == 0) {
            this.segment = segment;
            this.offset = offset;
            this.length = (int) length;
        } else {
            if (segment != null) {
                segments[count] = segment;
                segmentCount++;
            }
            offsets[count] = offset;
            lengths[count] = (int) length;
        }
        count++;
    }
}
