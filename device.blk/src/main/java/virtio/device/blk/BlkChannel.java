package virtio.device.blk;

import virtio.api.VirtioException;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.NonWritableChannelException;
import java.nio.channels.SeekableByteChannel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.locks.Lock;

/**
 * A disk as a channel, byte by byte: a write of part of a block reads the block first, and no other
 * channel of the same disk comes between.
 *
 * <p>Thread-safe: one call at a time, others wait. An interrupt does not end a call, because the
 * device uses the buffer; it stays set. The disk keeps its size: a write at its end is an error,
 * one across it is cut short, and truncation to less is an error.
 */
final class BlkChannel implements SeekableByteChannel {
    private static final int STAGE_BYTES = 1 << 20;

    private final BlkDevice disk;
    private final int stageBytes;
    private MemorySegment stage;
    private long position;
    private boolean written;
    private boolean closed;

    BlkChannel(BlkDevice disk) {
        this.disk = disk;
        stageBytes = Math.max(STAGE_BYTES, disk.blockSize());
    }

    @Override
    public synchronized int read(ByteBuffer into) throws IOException {
        ensureOpen();
        long available = disk.capacityBytes() - position;
        if (available <= 0) {
            return into.hasRemaining() ? -1 : 0;
        }
        int total = (int) Math.min(into.remaining(), available);
        for (int done = 0; done < total; ) {
            int within = (int) (position & (disk.blockSize() - 1));
            int piece = Math.min(total - done, stageBytes - within);
            MemorySegment blocks = stage(within + piece);
            await(disk.read(position - within, blocks));
            into.put(blocks.asSlice(within, piece).asByteBuffer());
            position += piece;
            done += piece;
        }
        return total;
    }

    @Override
    public synchronized int write(ByteBuffer from) throws IOException {
        ensureOpen();
        if (disk.readOnly()) {
            throw new NonWritableChannelException();
        }
        long available = disk.capacityBytes() - position;
        if (available <= 0 && from.hasRemaining()) {
            throw new VirtioException(
                    "%s: write at %d, the disk ends at %d"
                            .formatted(disk.name(), position, disk.capacityBytes()));
        }
        int total = (int) Math.min(from.remaining(), Math.max(available, 0));
        for (int done = 0; done < total; ) {
            int within = (int) (position & (disk.blockSize() - 1));
            int piece = Math.min(total - done, stageBytes - within);
            writeBlocks(from, within, piece);
            position += piece;
            done += piece;
        }
        return total;
    }

    private void writeBlocks(ByteBuffer from, int within, int piece) throws IOException {
        MemorySegment blocks = stage(within + piece);
        long start = position - within;
        boolean partial = within != 0 || within + piece < blocks.byteSize();
        Lock lock = partial ? disk.blocks.writeLock() : disk.blocks.readLock();
        lock.lock();
        try {
            if (partial) {
                readEdges(start, blocks, within, piece);
            }
            ByteBuffer data = from.slice(from.position(), piece);
            blocks.asSlice(within, piece).copyFrom(MemorySegment.ofBuffer(data));
            written = true;
            await(disk.write(start, blocks));
            from.position(from.position() + piece);
        } finally {
            lock.unlock();
        }
    }

    /** Reads the first and the last block, as far as the write leaves something of them. */
    private void readEdges(long start, MemorySegment blocks, int within, int piece)
            throws IOException {
        int blockSize = disk.blockSize();
        long last = blocks.byteSize() - blockSize;
        if (within != 0 || within + piece < blockSize) {
            await(disk.read(start, blocks.asSlice(0, blockSize)));
        }
        if (last > 0 && within + piece < blocks.byteSize()) {
            await(disk.read(start + last, blocks.asSlice(last, blockSize)));
        }
    }

    @Override
    public synchronized long position() throws IOException {
        ensureOpen();
        return position;
    }

    @Override
    public synchronized SeekableByteChannel position(long newPosition) throws IOException {
        ensureOpen();
        if (newPosition < 0) {
            throw new IllegalArgumentException("position %d is negative".formatted(newPosition));
        }
        position = newPosition;
        return this;
    }

    @Override
    public synchronized long size() throws IOException {
        ensureOpen();
        return disk.capacityBytes();
    }

    @Override
    public synchronized SeekableByteChannel truncate(long size) throws IOException {
        ensureOpen();
        if (size < 0) {
            throw new IllegalArgumentException("size %d is negative".formatted(size));
        }
        if (disk.readOnly()) {
            throw new NonWritableChannelException();
        }
        if (size < disk.capacityBytes()) {
            throw new VirtioException(
                    "%s: a disk of %d bytes cannot be truncated to %d"
                            .formatted(disk.name(), disk.capacityBytes(), size));
        }
        position = Math.min(position, size);
        return this;
    }

    @Override
    public synchronized boolean isOpen() {
        return !closed;
    }

    @Override
    public synchronized void close() throws IOException {
        if (closed) {
            return;
        }
        closed = true;
        try {
            if (written) {
                await(disk.flush());
            }
        } finally {
            if (stage != null) {
                disk.free(stage);
            }
        }
    }

    private void ensureOpen() throws ClosedChannelException {
        if (closed) {
            throw new ClosedChannelException();
        }
    }

    /** Memory for that many bytes, rounded up to whole blocks. */
    private MemorySegment stage(long bytes) throws VirtioException {
        if (stage == null) {
            stage = disk.allocate(stageBytes);
        }
        int mask = disk.blockSize() - 1;
        return stage.asSlice(0, (bytes + mask) & ~(long) mask);
    }

    private static void await(CompletableFuture<Void> done) throws IOException {
        try {
            done.join();
        } catch (CompletionException e) {
            if (e.getCause() instanceof IOException cause) {
                throw new VirtioException(cause.getMessage(), cause);
            }
            throw e;
        }
    }
}
