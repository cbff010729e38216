package virtio.transport.vhostuser;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.ring.queue.DeviceEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.Map;

/** A disk in memory of 2048 sectors and two queues, with the core's own queues below it. */
final class RamDevice implements ExportedDevice, Backend {
    static final int SECTORS = 2048;
    private static final int FLUSH = 9;

    final MemorySegment disk = Arena.ofAuto().allocate(512L * SECTORS);
    final Map<Integer, QueueLayout> layouts = new HashMap<>();
    volatile Features accepted = Features.NONE;
    volatile Features alsoOffered = Features.NONE;
    volatile int resets;
    volatile int writtenConfig = -1;

    /** Thrown by {@link #accept}, unless it is null. */
    volatile Error error;

    /** Held by {@link #process}: whoever holds it too keeps requests in flight. */
    final Object gate = new Object();

    private final DeviceEnd[] queues = new DeviceEnd[2];
    private Chain chain;

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features offered() {
        return Features.of(FLUSH, Feature.VERSION_1, Feature.INDIRECT_DESC, Feature.EVENT_IDX)
                .or(alsoOffered);
    }

    @Override
    public int queueCount() {
        return queues.length;
    }

    @Override
    public int maxQueueSize() {
        return 256;
    }

    @Override
    public int configSize() {
        return 60;
    }

    @Override
    public int configGeneration() {
        return 0;
    }

    @Override
    public void readConfig(int offset, byte[] into) {
        MemorySegment config = MemorySegment.ofArray(new byte[512]);
        config.set(ValueLayout.JAVA_LONG_UNALIGNED, 0, SECTORS);
        MemorySegment.ofArray(into).copyFrom(config.asSlice(offset, into.length));
    }

    @Override
    public void writeConfig(int offset, byte[] from) {
        writtenConfig = offset;
    }

    @Override
    public boolean accept(Features features) {
        if (error != null) {
            throw error;
        }
        accepted = features;
        return features.has(Feature.VERSION_1);
    }

    @Override
    public void startQueue(int queue, QueueLayout layout, DriverMemory memory, Export export)
            throws VirtioException {
        synchronized (gate) {
            if (queues[queue] != null) {
                throw new VirtioException("queue " + queue + " is started");
            }
            queues[queue] = DeviceEnd.start(queue, layout, accepted, memory, export);
            layouts.put(queue, layout);
        }
    }

    @Override
    public void queueNotified(int queue) {
        synchronized (gate) {
            if (queues[queue] != null) {
                queues[queue].serve(this);
            }
        }
    }

    @Override
    public int stopQueue(int queue) {
        synchronized (gate) {
            DeviceEnd end = queues[queue];
            queues[queue] = null;
            return end == null ? 0 : end.stop();
        }
    }

    /** Queues that are started. */
    int running() {
        synchronized (gate) {
            return (queues[0] == null ? 0 : 1) + (queues[1] == null ? 0 : 1);
        }
    }

    @Override
    public void reset() {
        stopQueue(0);
        stopQueue(1);
        accepted = Features.NONE;
        resets++;
    }

    @Override
    public void onConfigChange(Runnable listener) {}

    @Override
    public void accepted(Features features) {}

    @Override
    public void process(DeviceQueue queue) {
        chain = queue.newChain();
        while (queue.next(chain)) {
            int type = chain.read32(0);
            long at = 512 * chain.read64(8);
            long written = 1;
            if (type == 0) {
                long bytes = chain.writableBytes() - 1;
                chain.write(0, disk, at, bytes);
                written += bytes;
            } else if (type == 1) {
                chain.read(16, disk, at, chain.readableBytes() - 16);
            }
            chain.write8(chain.writableBytes() - 1, 0);
            queue.complete(chain, written);
        }
    }

    @Override
    public void close() {}
}
