package virtio.backend.blk;

import virtio.api.backend.Chain;

import java.io.IOException;

/**
 * Where a disk's bytes are kept. Ranges lie within {@link #capacityBytes} as it was when the caller
 * looked; several threads at once.
 */
interface Storage extends AutoCloseable {
    /** Size in bytes now, a multiple of the block size. */
    long capacityBytes();

    /** Copies bytes of the disk to the writable part of a buffer. */
    void read(long offset, Chain into, long chainOffset, long length) throws IOException;

    /** Copies the readable part of a buffer to the disk. */
    void write(long offset, Chain from, long chainOffset, long length) throws IOException;

    /** Makes the bytes read as zero. */
    void zero(long offset, long length) throws IOException;

    /** Returns when everything written before is on stable storage. */
    void flush() throws IOException;

    /** Where to report a change of {@link #capacityBytes} to, set once. */
    void onCapacityChange(Runnable listener);

    @Override
    void close();
}
