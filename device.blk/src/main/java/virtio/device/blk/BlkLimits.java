package virtio.device.blk;

import virtio.api.ConfigSpace;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockRequest;

/**
 * What a device says about itself (virtio 5.2.4), checked.
 *
 * @param capacityBytes size, whole blocks only
 * @param blockSize bytes of a block, a power of two of at least 512
 * @param readOnly whether it refuses writes
 * @param flush whether it has a cache to flush
 * @param discard whether it takes discards
 * @param writeZeroes whether it takes write zeroes
 * @param sizeMax most bytes of a data element
 * @param segMax most data elements of a request
 * @param queues number of request queues to use
 * @param maxDiscardBytes most bytes of a discard, whole blocks
 * @param discardAlignmentBytes where to split discards, whole blocks
 * @param maxWriteZeroesBytes most bytes of a write zeroes, whole blocks
 */
record BlkLimits(
        long capacityBytes,
        int blockSize,
        boolean readOnly,
        boolean flush,
        boolean discard,
        boolean writeZeroes,
        long sizeMax,
        int segMax,
        int queues,
        long maxDiscardBytes,
        long discardAlignmentBytes,
        long maxWriteZeroesBytes) {
    /** Features that this driver makes use of. */
    static final Features WANTED =
            Features.of(
                    BlockFeature.SIZE_MAX,
                    BlockFeature.SEG_MAX,
                    BlockFeature.RO,
                    BlockFeature.BLK_SIZE,
                    BlockFeature.FLUSH,
                    BlockFeature.MQ,
                    BlockFeature.DISCARD,
                    BlockFeature.WRITE_ZEROES);

    /** More queues than that help nobody and cost memory each. */
    static final int MAX_QUEUES = 64;

    private static final int MAX_BLOCK_SIZE = 2 << 20;
    private static final int ZONED_MODEL = 92;
    private static final int HOST_MANAGED = 1;

    /** Reads the configuration as the negotiated features allow. */
    static BlkLimits read(Features features, ConfigSpace config) throws VirtioException {
        int blockSize = BlockRequest.SECTOR_BYTES;
        if (features.has(BlockFeature.BLK_SIZE)) {
            blockSize = config.read32(BlockConfig.BLK_SIZE);
            if (blockSize < BlockRequest.SECTOR_BYTES
                    || blockSize > MAX_BLOCK_SIZE
                    || Integer.bitCount(blockSize) != 1) {
                throw new VirtioException(
                        "block size of %d bytes is not a power of two from %d to %d"
                                .formatted(
                                        Integer.toUnsignedLong(blockSize),
                                        BlockRequest.SECTOR_BYTES,
                                        MAX_BLOCK_SIZE));
            }
        }
        long sectors = config.read64(BlockConfig.CAPACITY_SECTORS);
        long sectorLimit = Long.MAX_VALUE / BlockRequest.SECTOR_BYTES;
        if (sectors < 0 || sectors > sectorLimit) {
            throw new VirtioException(
                    "capacity of %s sectors, the limit is %d"
                            .formatted(Long.toUnsignedString(sectors), sectorLimit));
        }
        long sizeMax = Integer.MAX_VALUE;
        if (features.has(BlockFeature.SIZE_MAX)) {
            long value = Integer.toUnsignedLong(config.read32(BlockConfig.SIZE_MAX));
            // qemu-storage-daemon offers the feature with 0, which can only mean no limit.
            sizeMax = value == 0 ? sizeMax : Math.min(sizeMax, value);
        }
        // As Linux: one element, also when the device says 0.
        int segMax = 1;
        if (features.has(BlockFeature.SEG_MAX)) {
            long value = Integer.toUnsignedLong(config.read32(BlockConfig.SEG_MAX));
            segMax = Math.clamp(value, 1, Short.MAX_VALUE);
        }
        int queues = 1;
        if (features.has(BlockFeature.MQ)) {
            queues = config.read16(BlockConfig.NUM_QUEUES);
            if (queues == 0) {
                throw new VirtioException("num_queues of 0, at least 1 is needed");
            }
            queues = Math.min(queues, MAX_QUEUES);
        }
        boolean readOnly = features.has(BlockFeature.RO);
        boolean discard = features.has(BlockFeature.DISCARD) && !readOnly;
        boolean writeZeroes = features.has(BlockFeature.WRITE_ZEROES) && !readOnly;
        long align = discard ? bytes(config, BlockConfig.DISCARD_SECTOR_ALIGNMENT) : 0;
        return new BlkLimits(
                sectors * BlockRequest.SECTOR_BYTES / blockSize * blockSize,
                blockSize,
                readOnly,
                features.has(BlockFeature.FLUSH),
                discard,
                writeZeroes,
                sizeMax,
                segMax,
                queues,
                discard ? range(config, BlockConfig.MAX_DISCARD_SECTORS, blockSize) : 0,
                Math.max(blockSize, align / blockSize * blockSize),
                writeZeroes ? range(config, BlockConfig.MAX_WRITE_ZEROES_SECTORS, blockSize) : 0);
    }

    /** A host-managed zoned device cannot be driven as a plain disk (5.2.5). */
    static void refuseZoned(Features offered, ConfigSpace config) throws VirtioException {
        if (offered.has(BlockFeature.ZONED) && config.read8(ZONED_MODEL) == HOST_MANAGED) {
            throw new VirtioException(
                    "host-managed zoned device (model %d), only models 0 and 2 can be driven"
                            .formatted(HOST_MANAGED));
        }
    }

    /**
     * Refuses what is not the same disk, or cannot do what consumers were told it can.
     *
     * @throws VirtioException naming both values
     */
    void same(BlkLimits other) throws VirtioException {
        same("capacity in bytes", capacityBytes, other.capacityBytes);
        same("block size in bytes", blockSize, other.blockSize);
        if (readOnly != other.readOnly) {
            throw new VirtioException(
                    readOnly
                            ? "the disk is read-only, the new one is writable"
                            : "the disk is writable, the new one is read-only");
        }
        keeps("FLUSH", flush, other.flush);
        keeps("DISCARD", discard, other.discard);
        keeps("WRITE_ZEROES", writeZeroes, other.writeZeroes);
        if (other.queues < queues) {
            throw new VirtioException(
                    "%d queues are in use, the new device has %d".formatted(queues, other.queues));
        }
    }

    /** The same but for the size, which may change. */
    BlkLimits withCapacity(long bytes) {
        return new BlkLimits(
                bytes,
                blockSize,
                readOnly,
                flush,
                discard,
                writeZeroes,
                sizeMax,
                segMax,
                queues,
                maxDiscardBytes,
                discardAlignmentBytes,
                maxWriteZeroesBytes);
    }

    private static long range(ConfigSpace config, int field, int blockSize) throws VirtioException {
        // As Linux: 0 is no limit but that of the field in the request.
        long most = bytes(config, field);
        if (most == 0) {
            most = 0xFFFFFFFFL * BlockRequest.SECTOR_BYTES;
        }
        if (most < blockSize) {
            throw new VirtioException(
                    "a range of %d bytes is the device's limit, a block has %d"
                            .formatted(most, blockSize));
        }
        return most / blockSize * blockSize;
    }

    private static long bytes(ConfigSpace config, int field) throws VirtioException {
        return Integer.toUnsignedLong(config.read32(field)) * BlockRequest.SECTOR_BYTES;
    }

    private static void same(String what, long mine, long other) throws VirtioException {
        if (mine != other) {
            throw new VirtioException(
                    "%s is %d, of the new device %d".formatted(what, mine, other));
        }
    }

    private static void keeps(String feature, boolean mine, boolean other) throws VirtioException {
        if (mine && !other) {
            throw new VirtioException(
                    "%s is in use, the new device does not offer it".formatted(feature));
        }
    }
}
