package virtio.backend.blk;

import virtio.api.VirtioException;
import virtio.api.backend.Chain;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicReferenceArray;

/**
 * A disk in memory, sparse: memory is taken in chunks when they are written to first, and kept
 * until the disk is closed. Zeroing gives no chunk back, because another queue may be copying to
 * it.
 */
final class RamStorage implements Storage {
    static final long MAX_BYTES = 1L << 40;
    private static final int CHUNK_BYTES = 1 << 20;

    private final long bytes;
    private final Arena arena = Arena.ofShared();
    private final AtomicReferenceArray<MemorySegment> chunks;

    /** With that many bytes, which must be a multiple of the block size. */
    RamStorage(long bytes, int blockSize) throws VirtioException {
        if (bytes < blockSize || bytes > MAX_BYTES || bytes % blockSize != 0) {
            throw new VirtioException(
                    "size of %d bytes is not a multiple of the block size %d from %d to %d"
                            .formatted(bytes, blockSize, blockSize, MAX_BYTES));
        }
        this.bytes = bytes;
        chunks = new AtomicReferenceArray<>((int) ((bytes + CHUNK_BYTES - 1) / CHUNK_BYTES));
    }

    @Override
    public long capacityBytes() {
        return bytes;
    }

    @Override
    public void read(long offset, Chain into, long chainOffset, long length) {
        for (long done = 0; done < length; ) {
            int within = (int) ((offset + done) % CHUNK_BYTES);
            long piece = Math.min(length - done, CHUNK_BYTES - within);
            MemorySegment chunk = chunks.getAcquire((int) ((offset + done) / CHUNK_BYTES));
            if (chunk == null) {
                into.fill(chainOffset + done, piece);
            } else {
                into.write(chainOffset + done, chunk, within, piece);
            }
            done += piece;
        }
    }

    @Override
    public void write(long offset, Chain from, long chainOffset, long length) throws IOException {
        for (long done = 0; done < length; ) {
            int within = (int) ((offset + done) % CHUNK_BYTES);
            long piece = Math.min(length - done, CHUNK_BYTES - within);
            MemorySegment chunk = chunk((int) ((offset + done) / CHUNK_BYTES));
            from.read(chainOffset + done, chunk, within, piece);
            done += piece;
        }
    }

    @Override
    public void zero(long offset, long length) {
        for (long done = 0; done < length; ) {
            int within = (int) ((offset + done) % CHUNK_BYTES);
            long piece = Math.min(length - done, CHUNK_BYTES - within);
            MemorySegment chunk = chunks.getAcquire((int) ((offset + done) / CHUNK_BYTES));
            if (chunk != null) {
                chunk.asSlice(within, piece).fill((byte) 0);
            }
            done += piece;
        }
    }

    @Override
    public void flush() {}

    @Override
    public void onCapacityChange(Runnable listener) {}

    @Override
    public void close() {
        if (arena.scope().isAlive()) {
            arena.close();
        }
    }

    private MemorySegment chunk(int index) throws IOException {
        MemorySegment chunk = chunks.getAcquire(index);
        if (chunk != null) {
            return chunk;
        }
        // Serialised: two queues that come first at once would take the memory twice.
        synchronized (chunks) {
            chunk = chunks.getAcquire(index);
            if (chunk == null) {
                try {
                    chunk = arena.allocate(CHUNK_BYTES, 4096);
                } catch (OutOfMemoryError e) {
                    throw new IOException(
                            "no memory for %d more bytes of a disk of %d"
                                    .formatted(CHUNK_BYTES, bytes),
                            e);
                }
                chunks.setRelease(index, chunk);
            }
            return chunk;
        }
    }
}
