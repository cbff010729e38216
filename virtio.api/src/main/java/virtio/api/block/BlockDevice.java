package virtio.api.block;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.Registration;
import virtio.api.VirtioException;

import java.lang.foreign.MemorySegment;
import java.nio.channels.SeekableByteChannel;
import java.util.concurrent.CompletableFuture;

/**
 * A disk; an OSGi service with the property {@value virtio.api.VirtioDevice#NAME}.
 *
 * <p>The service object stays the same while the transport below it is swapped or reconnected:
 * calls made meanwhile wait, up to the operator's limit, and then fail with a {@link
 * VirtioException} that names the reason.
 *
 * <p>Offsets and lengths are bytes and multiples of {@link #blockSize}. Any segment may be given
 * that every thread may access, which one of a confined arena is not; one from {@link #allocate} is
 * not copied. A buffer belongs to the device until its request completes: one that is closed before
 * is an I/O error. Thread-safe, but for {@link BlockQueue}.
 */
@ProviderType
public interface BlockDevice {
    /** The name the device was attached by, as {@code blk0}. */
    String name();

    /** Size of the disk in bytes; changes when the device announces a new capacity. */
    long capacityBytes();

    /** Bytes of a block, a power of two of at least 512. */
    int blockSize();

    /** Whether writes are refused. */
    boolean readOnly();

    /** The device's id string, or empty where it has none. */
    String serial();

    /** Number of virtqueues. */
    int queueCount();

    /** Whether {@link #discard} works. */
    boolean canDiscard();

    /** Whether {@link #writeZeroes} works. */
    boolean canWriteZeroes();

    /**
     * Memory the device sees without a copy, zeroed, aligned to 4096 bytes.
     *
     * <p>It outlives a swap, from when on it is copied like any other, but not the disk: once that
     * is removed, access throws {@link IllegalStateException}.
     *
     * @throws VirtioException when there is no room, naming size and room
     */
    MemorySegment allocate(long bytes) throws VirtioException;

    /** Gives back what {@link #allocate} gave; no request may be using it. */
    void free(MemorySegment memory);

    /**
     * A submission queue for one thread at a time.
     *
     * @param queue 0 to {@link #queueCount} - 1: the virtqueue it goes to; several submission
     *     queues may share one
     * @param depth most requests in flight, 1 to 65536
     * @throws IllegalArgumentException when either is beyond its limits, naming them
     * @throws VirtioException when the disk is gone
     */
    BlockQueue openQueue(int queue, int depth) throws VirtioException;

    /**
     * Reads {@code into.byteSize()} bytes.
     *
     * @throws IllegalArgumentException at once, when they are not whole blocks of the disk, naming
     *     value and limit, or the segment is read-only
     */
    CompletableFuture<Void> read(long offset, MemorySegment into);

    /**
     * Writes {@code from.byteSize()} bytes.
     *
     * @throws IllegalArgumentException at once, when they are not whole blocks of the disk, naming
     *     value and limit
     * @throws IllegalStateException at once, when the disk is read-only
     */
    CompletableFuture<Void> write(long offset, MemorySegment from);

    /** Completes when everything written before is on stable storage. */
    CompletableFuture<Void> flush();

    /**
     * Tells the device that the bytes are no longer needed; what they read as is undefined. Errors
     * as {@link #write}.
     */
    CompletableFuture<Void> discard(long offset, long length);

    /**
     * Makes the bytes read as zero. Errors as {@link #write}.
     *
     * @param unmap whether the device may give the storage back
     */
    CompletableFuture<Void> writeZeroes(long offset, long length, boolean unmap);

    /** A view of the disk as a channel; closing it flushes and leaves the disk as it is. */
    SeekableByteChannel channel();

    /**
     * Calls the listener, on a thread of the core, after every change of {@link #capacityBytes}.
     */
    Registration onCapacityChange(Runnable listener);
}
