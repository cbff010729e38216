package virtio.backend.blk;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockRequest;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The block device in software (virtio 5.2): checks requests and serves them from a {@link
 * Storage}.
 *
 * <p>What a driver does wrong ends in the request's status byte. A request that has no status byte
 * breaks its queue.
 */
final class BlkBackend implements Backend {
    /** Most data segments; with header and status they fit a ring of 128. */
    static final int SEG_MAX = 126;

    /** Most segments of a discard or write zeroes request. */
    static final int MAX_RANGES = 16;

    /** Most sectors of such a segment, 64 MiB: zeroing them all holds a queue up for long. */
    static final int MAX_RANGE_SECTORS = 131072;

    private static final int PHYSICAL_BLOCK_BYTES = 4096;
    private static final System.Logger LOG = System.getLogger(BlkBackend.class.getPackageName());

    private final Storage storage;
    private final BlkSpec spec;
    private final MemorySegment id;
    private final Serving[] serving;
    private final AtomicBoolean failing = new AtomicBoolean();
    private volatile byte[] config;
    private volatile Runnable configListener = () -> {};
    private volatile Features accepted = Features.NONE;

    /**
     * Serves a storage, which is closed with it.
     *
     * @param serial used where the description names none, at most 20 bytes
     */
    BlkBackend(Storage storage, BlkSpec spec, String serial) {
        this.storage = storage;
        this.spec = spec;
        String text = spec.serial() != null ? spec.serial() : serial;
        id =
                MemorySegment.ofArray(
                        Arrays.copyOf(
                                text.getBytes(StandardCharsets.UTF_8), BlockRequest.ID_BYTES));
        serving = new Serving[spec.queues()];
        storage.onCapacityChange(
                () -> {
                    config = config();
                    configListener.run();
                });
        config = config();
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features offered() {
        Features features =
                Features.of(
                        Feature.VERSION_1,
                        BlockFeature.SEG_MAX,
                        BlockFeature.BLK_SIZE,
                        BlockFeature.FLUSH,
                        BlockFeature.TOPOLOGY);
        if (spec.queues() > 1) {
            features = features.with(BlockFeature.MQ);
        }
        return spec.readOnly()
                ? features.with(BlockFeature.RO)
                : features.with(BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES);
    }

    @Override
    public int queueCount() {
        return spec.queues();
    }

    @Override
    public int configSize() {
        return BlockConfig.BYTES;
    }

    @Override
    public void readConfig(int offset, byte[] into) {
        System.arraycopy(config, offset, into, 0, into.length);
    }

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public void onConfigChange(Runnable listener) {
        configListener = listener;
    }

    @Override
    public void accepted(Features features) {
        accepted = features;
    }

    @Override
    public void queueStarted(DeviceQueue queue) {
        serving[queue.index()] = new Serving(queue.newChain());
    }

    @Override
    public void process(DeviceQueue queue) throws VirtioException {
        Serving s = serving[queue.index()];
        while (queue.next(s.chain)) {
            long writable = s.chain.writableBytes();
            if (writable == 0) {
                throw new VirtioException(
                        "queue %d: request with %d device-readable bytes has no byte for its status"
                                .formatted(queue.index(), s.chain.readableBytes()));
            }
            int status = BlockRequest.S_IOERR;
            boolean filled = false;
            if (s.chain.readableBytes() >= BlockRequest.HEADER_BYTES) {
                int type = s.chain.read32(BlockRequest.TYPE);
                try {
                    status = serve(queue, s, type, writable - 1);
                } catch (IOException e) {
                    failed(e);
                }
                filled = type == BlockRequest.IN || type == BlockRequest.GET_ID;
            }
            if (writable > 1 && !(filled && status == BlockRequest.S_OK)) {
                // The used length counts from the start (2.7.8.2), so all up to the status is
                // written.
                s.chain.fill(0, writable - 1);
            }
            s.chain.write8(writable - 1, status);
            queue.complete(s.chain, writable);
        }
    }

    @Override
    public void queueStopped(DeviceQueue queue) {
        serving[queue.index()] = null;
    }

    @Override
    public void close() {
        storage.close();
    }

    private int serve(DeviceQueue queue, Serving s, int type, long writableData)
            throws IOException {
        long readableData = s.chain.readableBytes() - BlockRequest.HEADER_BYTES;
        long sector = s.chain.read64(BlockRequest.SECTOR);
        switch (type) {
            case BlockRequest.IN -> {
                if (!inRange(sector, writableData)) {
                    return BlockRequest.S_IOERR;
                }
                storage.read(sector * BlockRequest.SECTOR_BYTES, s.chain, 0, writableData);
            }
            case BlockRequest.OUT -> {
                if (spec.readOnly() || !inRange(sector, readableData)) {
                    return BlockRequest.S_IOERR;
                }
                storage.write(
                        sector * BlockRequest.SECTOR_BYTES,
                        s.chain,
                        BlockRequest.HEADER_BYTES,
                        readableData);
                writeThrough();
            }
            case BlockRequest.FLUSH -> {
                queue.notifyDriver();
                storage.flush();
            }
            case BlockRequest.GET_ID -> {
                s.chain.fill(0, writableData);
                s.chain.write(0, id, 0, Math.min(writableData, BlockRequest.ID_BYTES));
            }
            case BlockRequest.DISCARD -> {
                return accepted.has(BlockFeature.DISCARD)
                        ? zero(queue, s, readableData, 0)
                        : BlockRequest.S_UNSUPP;
            }
            case BlockRequest.WRITE_ZEROES -> {
                return accepted.has(BlockFeature.WRITE_ZEROES)
                        ? zero(queue, s, readableData, BlockRequest.UNMAP)
                        : BlockRequest.S_UNSUPP;
            }
            default -> {
                return BlockRequest.S_UNSUPP;
            }
        }
        return BlockRequest.S_OK;
    }

    /**
     * Serves discard and write zeroes, which both zero.
     *
     * @param knownFlags the flags that may be set
     */
    private int zero(DeviceQueue queue, Serving s, long bytes, int knownFlags) throws IOException {
        long count = bytes / BlockRequest.SEGMENT_BYTES;
        if (bytes % BlockRequest.SEGMENT_BYTES != 0 || count < 1 || count > MAX_RANGES) {
            return BlockRequest.S_IOERR;
        }
        // Copied first, as the driver may change them meanwhile; all are checked before the first
        // is served.
        int status = BlockRequest.S_OK;
        for (int i = 0; i < count; i++) {
            long at = BlockRequest.HEADER_BYTES + (long) i * BlockRequest.SEGMENT_BYTES;
            s.sectors[i] = s.chain.read64(at);
            s.counts[i] = Integer.toUnsignedLong(s.chain.read32(at + BlockRequest.SEGMENT_SECTORS));
            if ((s.chain.read32(at + BlockRequest.SEGMENT_FLAGS) & ~knownFlags) != 0) {
                return BlockRequest.S_UNSUPP;
            }
            if (s.counts[i] > MAX_RANGE_SECTORS
                    || !inRange(s.sectors[i], s.counts[i] * BlockRequest.SECTOR_BYTES)) {
                status = BlockRequest.S_IOERR;
            }
        }
        if (status == BlockRequest.S_OK) {
            queue.notifyDriver();
            for (int i = 0; i < count; i++) {
                storage.zero(
                        s.sectors[i] * BlockRequest.SECTOR_BYTES,
                        s.counts[i] * BlockRequest.SECTOR_BYTES);
            }
            writeThrough();
        }
        return status;
    }

    /** A driver that cannot flush may take a completed write for stable (5.2.6.2). */
    private void writeThrough() throws IOException {
        if (!accepted.has(BlockFeature.FLUSH)) {
            storage.flush();
        }
    }

    private boolean inRange(long sector, long bytes) {
        long limit = storage.capacityBytes() / BlockRequest.SECTOR_BYTES;
        return bytes % spec.blockSize() == 0
                && sector >= 0
                && sector % (spec.blockSize() / BlockRequest.SECTOR_BYTES) == 0
                && bytes / BlockRequest.SECTOR_BYTES <= limit - sector;
    }

    private byte[] config() {
        int blockSectors = spec.blockSize() / BlockRequest.SECTOR_BYTES;
        int blocks = Math.max(1, PHYSICAL_BLOCK_BYTES / spec.blockSize());
        ByteBuffer c = ByteBuffer.allocate(BlockConfig.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        c.putLong(
                BlockConfig.CAPACITY_SECTORS, storage.capacityBytes() / BlockRequest.SECTOR_BYTES);
        c.putInt(BlockConfig.SEG_MAX, SEG_MAX);
        c.putInt(BlockConfig.BLK_SIZE, spec.blockSize());
        c.put(BlockConfig.PHYSICAL_BLOCK_EXP, (byte) Integer.numberOfTrailingZeros(blocks));
        c.putShort(BlockConfig.MIN_IO_SIZE, (short) blocks);
        c.putShort(BlockConfig.NUM_QUEUES, (short) spec.queues());
        if (!spec.readOnly()) {
            c.putInt(BlockConfig.MAX_DISCARD_SECTORS, MAX_RANGE_SECTORS);
            c.putInt(BlockConfig.MAX_DISCARD_SEG, MAX_RANGES);
            c.putInt(BlockConfig.DISCARD_SECTOR_ALIGNMENT, blockSectors);
            c.putInt(BlockConfig.MAX_WRITE_ZEROES_SECTORS, MAX_RANGE_SECTORS);
            c.putInt(BlockConfig.MAX_WRITE_ZEROES_SEG, MAX_RANGES);
        }
        return c.array();
    }

    /** One line for the operator, not one per request: the driver sees them all. */
    private void failed(IOException e) {
        if (failing.compareAndSet(false, true)) {
            LOG.log(System.Logger.Level.WARNING, "block backend {0}: {1}", spec.target(), e);
        }
    }

    /** What the thread of one queue needs. */
    private static final class Serving {
        final Chain chain;
        final long[] sectors = new long[MAX_RANGES];
        final long[] counts = new long[MAX_RANGES];

        Serving(Chain chain) {
            this.chain = chain;
        }
    }
}
