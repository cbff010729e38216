package virtio.stress;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Both ends of a small ring, of the layout that {@link #FEATURES} says, one for each try: millions
 * are made, so their memory is a slice of one slab that comes round again long after the try is
 * over.
 */
abstract class Ends implements MapOps, DriverMemory, Export, Backend {
    /** The same for all tries of a JVM, so that compiled code knows only one layout. */
    static final Features FEATURES = features(System.getProperty("virtio.features", ""));

    static final int PAYLOAD = 0x1234_5678;

    private static final int SIZE = 4;
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT;

    /** One for each try that may be under way at once, and by far. */
    private static final int SLICES = 1 << 18;

    private static final long SLICE_BYTES = 1024;
    private static final long BUFFER_BYTES = 128;
    private static final MemorySegment SLAB =
            Arena.global().allocate(SLICES * SLICE_BYTES, SLICE_BYTES);
    private static final AtomicInteger NEXT = new AtomicInteger();
    private static final MapToken TOKEN = new MapToken() {};

    final DriverEnd driver;
    final DeviceEnd device;
    final Chain chain;
    final Chain second;
    int interrupts;
    int served;

    private final MemorySegment slice;
    private final ScatterList list = new ScatterList(3);

    Ends() {
        int number = NEXT.getAndIncrement() & SLICES - 1;
        slice = SLAB.asSlice(number * SLICE_BYTES, SLICE_BYTES).fill((byte) 0);
        try {
            driver =
                    DriverEnd.create(
                            0,
                            new QueueRequest("stress", SIZE, queue -> {}),
                            SIZE,
                            FEATURES,
                            new DeviceMapping(this, TOKEN),
                            null,
                            (queue, reason) -> {
                                throw new AssertionError(reason);
                            });
            device = DeviceEnd.start(0, driver.layout(), FEATURES, this, this);
        } catch (VirtioException e) {
            throw new AssertionError(e);
        }
        chain = device.newChain();
        second = device.newChain();
    }

    private static Features features(String names) {
        Features features = Features.of(Feature.VERSION_1);
        for (String name : names.split("\\+")) {
            features =
                    switch (name) {
                        case "packed" -> features.with(Feature.RING_PACKED);
                        case "event" -> features.with(Feature.EVENT_IDX);
                        case "inorder" -> features.with(Feature.IN_ORDER);
                        default -> features;
                    };
        }
        return features;
    }

    /** Adds a buffer whose device-readable bytes say {@link #PAYLOAD}. */
    final void addOut() {
        slice.set(INT, 0, PAYLOAD);
        driver.add(list.clear().out(slice, 0, 4), 1);
    }

    /** As {@link #addOut} twice, with both added at once. */
    final void addTwoOut() {
        slice.set(INT, 0, PAYLOAD);
        long[] mapHandles = {slice.address(), slice.address()};
        driver.addOutMapped(mapHandles, new int[] {4, 4}, new long[] {1, 1}, 2);
    }

    /** As {@link #addOut}, in three descriptors, the last one device-writable. */
    final void addChain() {
        slice.set(INT, 0, PAYLOAD);
        slice.set(INT, 4, PAYLOAD);
        driver.add(list.clear().out(slice, 0, 4).out(slice, 4, 4).in(slice, 8, 4), 1);
    }

    /** Adds a buffer for the device to write to. */
    final void addIn() {
        driver.add(list.clear().in(slice, 8, 4), 2);
    }

    /** Makes a buffer available that the device has taken. */
    final void handOver(Chain into) {
        addIn();
        driver.kickPrepare();
        if (!device.next(into)) {
            throw new AssertionError("not available");
        }
    }

    /** What the device wrote to the buffer of {@link #addIn}. */
    final int received() {
        return slice.get(INT, 8);
    }

    /** Writes {@link #PAYLOAD} into a buffer and uses it. */
    final void use(Chain taken) {
        write(taken);
        device.complete(taken, 4);
    }

    final void write(Chain taken) {
        taken.writable(0, 4).set(ValueLayout.JAVA_INT_UNALIGNED, 0, PAYLOAD);
    }

    /** 1 when the driver got a buffer. */
    final int get() {
        return driver.get() != Virtqueue.NONE ? 1 : 0;
    }

    @Override
    public void process(DeviceQueue queue) {
        while (queue.next(chain)) {
            queue.complete(chain, 0);
            served++;
        }
    }

    @Override
    public void interrupt(int queue) {
        interrupts++;
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        MemorySegment memory = slice.asSlice(BUFFER_BYTES, size);
        return new CoherentMemory(memory, memory.address());
    }

    @Override
    public long mapPage(
            MapToken token, MemorySegment page, long offset, long size, Direction d, long attrs) {
        return page.address() + offset;
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        return mapHandle;
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        return Long.MAX_VALUE;
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return false;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return 4096;
    }

    @Override
    public void queueBroken(int queue, String reason) {
        throw new AssertionError(reason);
    }

    // Nothing of what follows has an effect: memory is where it is, and nobody configures.

    @Override
    public void free(MapToken token, CoherentMemory memory) {}

    @Override
    public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {}

    @Override
    public void syncSingleForCpu(MapToken token, long handle, long size, Direction d) {}

    @Override
    public void syncSingleForDevice(MapToken token, long handle, long size, Direction d) {}

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return false;
    }

    @Override
    public String driver() {
        return "stress";
    }

    @Override
    public void configChanged() {}

    @Override
    public void schedule(int queue) {}

    @Override
    public int deviceType() {
        return 0;
    }

    @Override
    public Features offered() {
        return Features.NONE;
    }

    @Override
    public int queueCount() {
        return 1;
    }

    @Override
    public int configSize() {
        return 0;
    }

    @Override
    public void readConfig(int offset, byte[] into) {}

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public void onConfigChange(Runnable listener) {}

    @Override
    public void accepted(Features features) {}

    @Override
    public void close() {}
}
