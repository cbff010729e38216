package virtio.transport.vduse;

import com.sun.management.ThreadMXBean;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.linux.Linux;
import virtio.linux.Memory;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * What mapping costs in an {@link IovaDomain}: a buffer that lies in it against one that is
 * bounced, in turns; mapped and unmapped alone, and in a request through both ends of a virtqueue,
 * whose device copies the buffer as a RAM disk does.
 *
 * <p>One JVM for one size and direction, so that profiles do not mix. Lies in this package for the
 * domain, which is no part of any API. Prints lines of a name and a number.
 */
public final class MapFork {
    private static final int DOMAIN_BYTES = 64 << 20;
    private static final int QUEUE_SIZE = 256;
    private static final int BATCH = 32;
    private static final long ROUND_BYTES = 32 << 20;
    private static final int WARM_UP_OPERATIONS = 50_000;
    private static final int LEAST_ROUNDS = 20;

    private final ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    private final Direction direction;
    private final long bytes;
    private final int count;
    private final DeviceMapping mapping;
    private final DriverEnd driver;
    private final DeviceEnd device;
    private final Chain chain;
    private final MemorySegment disk;
    private final MemorySegment[] shared = new MemorySegment[BATCH];
    private final MemorySegment[] foreign = new MemorySegment[BATCH];
    private final ScatterList[] sharedLists = new ScatterList[BATCH];
    private final ScatterList[] foreignLists = new ScatterList[BATCH];

    private MapFork(long bytes, Direction direction) throws Exception {
        this.bytes = bytes;
        this.direction = direction;
        // Enough for a round of about the same time at every size.
        count = (int) Math.max(BATCH, ROUND_BYTES / bytes / BATCH * BATCH);
        IovaDomain domain =
                new IovaDomain("cost", DOMAIN_BYTES, Memory.PAGE_BYTES, 0, -1, new Nobody());
        mapping = new DeviceMapping(new VhostVdpaMapOps(), domain);
        CoherentMemory coherent = mapping.alloc(BATCH * bytes);
        for (int i = 0; i < BATCH; i++) {
            shared[i] = coherent.segment().asSlice(i * bytes, bytes);
            foreign[i] = MemorySegment.ofArray(new byte[(int) bytes]);
            sharedLists[i] = list(shared[i]);
            foreignLists[i] = list(foreign[i]);
        }
        disk = Arena.global().allocate(bytes, Memory.PAGE_BYTES);
        Features features = Features.of(Feature.VERSION_1);
        driver =
                DriverEnd.create(
                        0,
                        new QueueRequest("ring", QUEUE_SIZE, null),
                        QUEUE_SIZE,
                        features,
                        mapping,
                        null,
                        (queue, reason) -> {
                            throw new IllegalStateException(reason);
                        });
        long offset = coherent.segment().address() - coherent.mapHandle();
        DriverMemory memory = new Domain(offset, 2L * DOMAIN_BYTES);
        device = DeviceEnd.start(0, driver.layout(), features, memory, new Nobody());
        chain = device.newChain();
    }

    private ScatterList list(MemorySegment buffer) {
        ScatterList list = new ScatterList(1);
        return direction == Direction.TO_DEVICE ? list.out(buffer) : list.in(buffer);
    }

    /** Arguments: bytes of a buffer, direction, milliseconds, processor. */
    public static void main(String[] args) throws Exception {
        MapFork fork = new MapFork(Long.parseLong(args[0]), Direction.valueOf(args[1]));
        Linux.pin(Integer.parseInt(args[3]));
        fork.measure(Integer.parseInt(args[2]) * 1_000_000L);
        System.exit(0);
    }

    private void measure(long nanos) throws VirtioException {
        for (int done = 0; done < WARM_UP_OPERATIONS; done += count) {
            mapped(shared);
            mapped(foreign);
            requested(sharedLists);
            requested(foreignLists);
        }
        List<Double> sharedMap = new ArrayList<>();
        List<Double> foreignMap = new ArrayList<>();
        List<Double> sharedRequest = new ArrayList<>();
        List<Double> foreignRequest = new ArrayList<>();
        List<Double> ratios = new ArrayList<>();
        long allocated = 0;
        long operations = 0;
        long end = System.nanoTime() + nanos;
        for (int i = 0; i < LEAST_ROUNDS || System.nanoTime() < end; i++) {
            long before = threads.getCurrentThreadAllocatedBytes();
            boolean sharedFirst = (i & 1) == 0;
            double mappedHere = sharedFirst ? mapped(shared) : 0;
            double bounced = mapped(foreign);
            mappedHere = sharedFirst ? mappedHere : mapped(shared);
            double requestHere = sharedFirst ? requested(sharedLists) : 0;
            double requestBounced = requested(foreignLists);
            requestHere = sharedFirst ? requestHere : requested(sharedLists);
            allocated += threads.getCurrentThreadAllocatedBytes() - before;
            operations += 4L * count;
            sharedMap.add(mappedHere);
            foreignMap.add(bounced);
            sharedRequest.add(requestHere);
            foreignRequest.add(requestBounced);
            ratios.add(requestBounced / requestHere);
        }
        System.out.println("map.shared " + median(sharedMap));
        System.out.println("map.bounced " + median(foreignMap));
        System.out.println("request.shared " + median(sharedRequest));
        System.out.println("request.bounced " + median(foreignRequest));
        System.out.println("ratio " + median(ratios));
        System.out.println("bytes " + (double) allocated / operations);
    }

    private static double median(List<Double> values) {
        Collections.sort(values);
        return values.get(values.size() / 2);
    }

    /** Nanoseconds to map and to unmap a buffer, with what is copied for it. */
    private double mapped(MemorySegment[] buffers) {
        long start = System.nanoTime();
        for (int i = 0; i < count; i++) {
            long handle = mapping.map(buffers[i % BATCH], 0, bytes, direction);
            mapping.unmap(handle, bytes, direction);
        }
        return (System.nanoTime() - start) / (double) count;
    }

    /** Nanoseconds of a request, in batches. */
    private double requested(ScatterList[] lists) throws VirtioException {
        long start = System.nanoTime();
        for (int done = 0; done < count; done += BATCH) {
            for (int i = 0; i < BATCH; i++) {
                driver.add(lists[i], i);
            }
            driver.kickPrepare();
            while (device.next(chain)) {
                serve();
            }
            for (int i = 0; i < BATCH; i++) {
                if (driver.get() == Virtqueue.NONE) {
                    throw new IllegalStateException(driver.broken() + ", " + device.broken());
                }
            }
        }
        return (System.nanoTime() - start) / (double) count;
    }

    private void serve() {
        if (direction == Direction.TO_DEVICE) {
            chain.read(0, disk, 0, bytes);
            device.complete(chain, 0);
        } else {
            chain.write(0, disk, 0, bytes);
            device.complete(chain, bytes);
        }
    }

    /** The first region of a domain, in this process. */
    private record Domain(long offset, long end) implements DriverMemory {
        @Override
        public long translate(long mapHandle, long length, boolean write) {
            return mapHandle <= 0 || length > end - mapHandle ? FAULT : mapHandle + offset;
        }

        @Override
        public long reach(long mapHandle, boolean write) {
            return Math.max(0, end - mapHandle);
        }
    }

    /** Nobody needs to be shown or told anything. */
    private static final class Nobody implements IovaDomain.Shower, Export {
        @Override
        public void change(boolean show, long iova, long bytes, long address) {}

        @Override
        public void begin() {}

        @Override
        public void end() {}

        @Override
        public String driver() {
            return null;
        }

        @Override
        public void interrupt(int queue) {}

        @Override
        public void configChanged() {}

        @Override
        public void schedule(int queue) {}

        @Override
        public void queueBroken(int queue, String reason) {}

        @Override
        public void close() {}
    }
}
