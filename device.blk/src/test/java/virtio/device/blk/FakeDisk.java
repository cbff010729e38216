package virtio.device.blk;

import virtio.api.ConfigSpace;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.VirtioDevice;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockRequest;
import virtio.api.map.DeviceMapping;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Core and device in one, over a byte array; checks what a driver must keep to, and fails in ways
 * that a test sets.
 */
final class FakeDisk implements VirtioDevice, AutoCloseable {
    private static final ValueLayout.OfInt INT =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    final byte[] image;
    final byte[] config = new byte[96];
    final FakeMemory memory = new FakeMemory();
    final List<String> violations = new ArrayList<>();
    final ConcurrentLinkedQueue<String> resets = new ConcurrentLinkedQueue<>();

    /** Requests as {@code type@sector+bytes}, in the order of service. */
    final List<String> served = new ArrayList<>();

    Features features =
            Features.of(
                    Feature.VERSION_1,
                    BlockFeature.SEG_MAX,
                    BlockFeature.FLUSH,
                    BlockFeature.DISCARD,
                    BlockFeature.WRITE_ZEROES);
    String serial = "fake";
    int queueSize = 256;
    long swapTimeoutMillis = 10_000;
    boolean ready;

    /** Whether to keep requests until {@link #release}, all but GET_ID. */
    volatile boolean hold;

    volatile boolean reverse;

    /** The status to answer with; -1 to serve as is right, -2 to leave it alone. */
    volatile int status = -1;

    /** Whether to note what is served; costs memory. */
    boolean note = true;

    private volatile boolean spinning;

    FakeVirtqueue[] queues = {};
    private final DeviceMapping mapping = new DeviceMapping(memory, memory);
    private final ExecutorService thread =
            Executors.newSingleThreadExecutor(Thread.ofPlatform().daemon().factory());

    FakeDisk(int bytes) {
        this(new byte[bytes]);
    }

    /** Another path to the same bytes. */
    FakeDisk(byte[] image) {
        this.image = image;
        set64(BlockConfig.CAPACITY_SECTORS, image.length / 512);
        set32(BlockConfig.SEG_MAX, 16);
        set32(BlockConfig.MAX_DISCARD_SECTORS, 64);
        set32(BlockConfig.MAX_DISCARD_SEG, 1);
        set32(BlockConfig.DISCARD_SECTOR_ALIGNMENT, 8);
        set32(BlockConfig.MAX_WRITE_ZEROES_SECTORS, 32);
        set32(BlockConfig.MAX_WRITE_ZEROES_SEG, 1);
    }

    private ByteBuffer configBytes() {
        return ByteBuffer.wrap(config).order(ByteOrder.LITTLE_ENDIAN);
    }

    void set32(int offset, int value) {
        configBytes().putInt(offset, value);
    }

    void set64(int offset, long value) {
        configBytes().putLong(offset, value);
    }

    synchronized void violation(String what) {
        violations.add(what);
    }

    @Override
    public Virtqueue[] findQueues(QueueRequest... wanted) {
        queues = new FakeVirtqueue[wanted.length];
        for (int i = 0; i < wanted.length; i++) {
            queues[i] =
                    new FakeVirtqueue(this, i, Math.min(queueSize, wanted[i].maxSize()), wanted[i]);
        }
        return queues.clone();
    }

    @Override
    public void ready() {
        ready = true;
    }

    /** What the core does after freeze. */
    void reset() throws Exception {
        settle();
        for (FakeVirtqueue queue : queues) {
            queue.close();
        }
    }

    void kicked(FakeVirtqueue queue) {
        if (!ready) {
            violation("kick before DRIVER_OK");
        }
        if (!spinning) {
            thread.execute(() -> serve(queue));
        }
    }

    /** Serves without being told, so that a kick costs no memory. */
    void spin() {
        spinning = true;
        thread.execute(
                () -> {
                    while (spinning) {
                        serve(queues[0]);
                        Thread.onSpinWait();
                    }
                });
    }

    void stopSpinning() {
        spinning = false;
    }

    void release() {
        hold = false;
        for (FakeVirtqueue queue : queues) {
            thread.execute(() -> serve(queue));
        }
    }

    /** Returns when everything kicked so far is served or held. */
    void settle() throws Exception {
        if (!thread.isShutdown()) {
            thread.submit(() -> {}).get();
        }
    }

    private final ArrayList<FakeVirtqueue.Buffer> burst = new ArrayList<>();
    private final List<FakeVirtqueue.Buffer> kept = new ArrayList<>();

    private void serve(FakeVirtqueue queue) {
        burst.clear();
        if (!hold) {
            burst.addAll(kept);
            kept.clear();
        }
        for (FakeVirtqueue.Buffer b = queue.next(); b != null; b = queue.next()) {
            (hold && type(b) != BlockRequest.GET_ID ? kept : burst).add(b);
        }
        for (int i = 0; i < burst.size(); i++) {
            FakeVirtqueue.Buffer buffer = burst.get(reverse ? burst.size() - 1 - i : i);
            serve(buffer);
            queue.use(buffer);
        }
        if (!burst.isEmpty()) {
            queue.interrupt();
        }
    }

    private MemorySegment element(FakeVirtqueue.Buffer b, int i) {
        return b.segments[i] == null
                ? memory.at(b.offsets[i], b.lengths[i])
                : b.segments[i].asSlice(b.offsets[i], b.lengths[i]);
    }

    private int type(FakeVirtqueue.Buffer b) {
        return element(b, 0).get(INT, BlockRequest.TYPE);
    }

    private void serve(FakeVirtqueue.Buffer b) {
        MemorySegment header = element(b, 0);
        int type = header.get(INT, BlockRequest.TYPE);
        long sector = header.get(LONG, BlockRequest.SECTOR);
        long bytes = 0;
        for (int i = 1; i < b.count - 1; i++) {
            bytes += b.lengths[i];
            if (b.lengths[i] > memory.maxMappingSize
                    || features.has(BlockFeature.SIZE_MAX)
                            && configBytes().getInt(BlockConfig.SIZE_MAX) != 0
                            && b.lengths[i] > configBytes().getInt(BlockConfig.SIZE_MAX)) {
                violation("element of " + b.lengths[i]);
            }
        }
        if (b.count - 2 > (features.has(BlockFeature.SEG_MAX) ? segMax() : 1)) {
            violation("elements: " + b.count);
        }
        if (note) {
            synchronized (this) {
                served.add(type + "@" + sector + "+" + bytes);
            }
        }
        int answer = status;
        if (answer == -1) {
            answer = BlockRequest.S_OK;
            switch (type) {
                case BlockRequest.IN, BlockRequest.OUT -> data(b, type, sector, bytes);
                case BlockRequest.FLUSH -> {
                    if (sector != 0 || bytes != 0) {
                        violation("flush of sector " + sector + " with " + bytes);
                    }
                }
                case BlockRequest.GET_ID -> {
                    if (bytes != BlockRequest.ID_BYTES) {
                        violation("id of " + bytes);
                    }
                    byte[] id = serial.getBytes(StandardCharsets.UTF_8);
                    element(b, 1).copyFrom(MemorySegment.ofArray(Arrays.copyOf(id, 20)));
                }
                case BlockRequest.DISCARD, BlockRequest.WRITE_ZEROES -> zero(b, type, bytes);
                default -> answer = BlockRequest.S_UNSUPP;
            }
        }
        if (answer >= 0) {
            element(b, b.count - 1).set(ValueLayout.JAVA_BYTE, 0, (byte) answer);
        }
    }

    private int segMax() {
        return configBytes().getInt(BlockConfig.SEG_MAX);
    }

    private void data(FakeVirtqueue.Buffer b, int type, long sector, long bytes) {
        if (bytes % 512 != 0 || bytes == 0) {
            violation("data of " + bytes);
        }
        if (sector * 512 + bytes > image.length) {
            violation("data of " + bytes + " at sector " + sector);
            return;
        }
        int at = (int) sector * 512;
        MemorySegment disk = MemorySegment.ofArray(image);
        for (int i = 1; i < b.count - 1; i++) {
            MemorySegment element = element(b, i);
            MemorySegment place = disk.asSlice(at, element.byteSize());
            if (type == BlockRequest.IN) {
                element.copyFrom(place);
            } else {
                place.copyFrom(element);
            }
            at += (int) element.byteSize();
        }
    }

    private void zero(FakeVirtqueue.Buffer b, int type, long bytes) {
        if (bytes != BlockRequest.SEGMENT_BYTES) {
            violation("ranges of " + bytes);
        }
        MemorySegment range = element(b, 1);
        long sector = range.get(LONG, 0);
        int count = range.get(INT, BlockRequest.SEGMENT_SECTORS);
        int flags = range.get(INT, BlockRequest.SEGMENT_FLAGS);
        boolean discard = type == BlockRequest.DISCARD;
        int most =
                configBytes()
                        .getInt(
                                discard
                                        ? BlockConfig.MAX_DISCARD_SECTORS
                                        : BlockConfig.MAX_WRITE_ZEROES_SECTORS);
        if (count < 1 || count > most || discard && flags != 0 || (flags & ~1) != 0) {
            violation("range of " + count + " sectors, flags " + flags);
        }
        synchronized (this) {
            served.set(served.size() - 1, type + "@" + sector + "+" + count * 512 + "/" + flags);
        }
        if (sector * 512 + count * 512L > image.length) {
            violation("range of " + count + " at sector " + sector);
            return;
        }
        Arrays.fill(image, (int) sector * 512, (int) (sector + count) * 512, (byte) 0);
    }

    synchronized List<String> takeServed() {
        List<String> taken = List.copyOf(served);
        served.clear();
        return taken;
    }

    @Override
    public String name() {
        return "blk0";
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features features() {
        return features;
    }

    @Override
    public DeviceMapping mapping() {
        return mapping;
    }

    @Override
    public void needsReset(String reason) {
        resets.add(reason);
    }

    @Override
    public long swapTimeoutMillis() {
        return swapTimeoutMillis;
    }

    @Override
    public void close() {
        thread.shutdownNow();
    }

    @Override
    public ConfigSpace config() {
        return new Config();
    }

    /** The configuration, which nobody may write. */
    private final class Config implements ConfigSpace {
        @Override
        public int read8(int offset) {
            if (offset == BlockConfig.WRITEBACK) {
                violation("writeback is read");
            }
            return config[offset] & 0xFF;
        }

        @Override
        public int read16(int offset) {
            return configBytes().getShort(offset) & 0xFFFF;
        }

        @Override
        public int read32(int offset) {
            return configBytes().getInt(offset);
        }

        @Override
        public long read64(int offset) {
            return configBytes().getLong(offset);
        }

        @Override
        public void read(int offset, byte[] into) {
            System.arraycopy(config, offset, into, 0, into.length);
        }

        @Override
        public void write8(int offset, int value) throws VirtioException {
            throw new VirtioException("not writable");
        }

        @Override
        public void write16(int offset, int value) throws VirtioException {
            throw new VirtioException("not writable");
        }

        @Override
        public void write32(int offset, int value) throws VirtioException {
            throw new VirtioException("not writable");
        }
    }
}
