package virtio.api.backend;

import org.osgi.annotation.versioning.ProviderType;

import java.lang.foreign.MemorySegment;

/**
 * One available buffer: a part that the device reads, then a part that it writes, each addressed
 * from 0 across its elements.
 *
 * <p>Valid from {@link DeviceQueue#next} to {@link DeviceQueue#complete} or the stop of the queue.
 * The driver can change the memory meanwhile: what is checked must be copied first.
 */
@ProviderType
public interface Chain {
    /** Bytes the device may read. */
    long readableBytes();

    /** Bytes the device may write. */
    long writableBytes();

    /** Copies from the readable part; allocates nothing. */
    void read(long offset, MemorySegment into, long intoOffset, long length);

    /** Copies to the writable part; allocates nothing. */
    void write(long offset, MemorySegment from, long fromOffset, long length);

    /** Zeroes bytes of the writable part. */
    void fill(long offset, long length);

    /** The 8 bits at an offset of the readable part, unsigned. */
    int read8(long offset);

    /** The little-endian 32 bits at an offset of the readable part. */
    int read32(long offset);

    /** The little-endian 64 bits at an offset of the readable part. */
    long read64(long offset);

    /** Stores 8 bits at an offset of the writable part. */
    void write8(long offset, int value);

    /**
     * The longest piece from an offset of the readable part that lies in one place, read-only, at
     * most {@code length} bytes; for I/O without a copy.
     */
    MemorySegment readable(long offset, long length);

    /** The same of the writable part. */
    MemorySegment writable(long offset, long length);
}
