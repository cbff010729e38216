package virtio.bench;

import virtio.api.ScatterList;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionMapOps;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.linux.Linux;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.Proxy;

/**
 * What it costs that a queue maps by the operations of its transport: rounds of both ends in one
 * thread, once with segments that the operations map, once with the same addresses handed out by
 * the caller, as a ring with a hard-wired identity would do.
 *
 * <p>The JVM has seen three implementations of the operations, as where several transports run.
 *
 * <p>Prints lines of a name and a number, as {@link RingFork} does.
 */
public final class RingMapping {
    /** {@link IdentityMapOps}, and operations over a shared region as transports have them. */
    static final String[] OPERATIONS = {"identity", "region"};

    private static final int BUFFERS = 65536;
    private static final int SEGMENT_BYTES = 64;
    private static final int REGION_BYTES = 1 << 20;
    private static final int WARM_UP = 100;
    private static final int LEAST_ROUNDS = 20;

    private final int elements;
    private final ScatterList list;
    private final MemorySegment memory;
    private final RingEnds.Solo solo;

    private RingMapping(RingWay way, int batch, int elements, MapOps ops, MapToken token)
            throws Exception {
        this.elements = elements;
        list = new ScatterList(elements);
        memory = ops.alloc(token, 4096).segment();
        DriverEnd driver = RingEnds.driver(way, ops, token);
        solo = new RingEnds.Solo(way, driver, batch, list);
    }

    /** Arguments: layout, batch, milliseconds, segments of a buffer, operations, processor. */
    public static void main(String[] args) throws Exception {
        RingWay way = new RingWay(args[0], "poll");
        int batch = Integer.parseInt(args[1]);
        int elements = Integer.parseInt(args[3]);
        Linux.pin(Integer.parseInt(args[5]));
        MapOps ops = args[4].equals("identity") ? new IdentityMapOps() : new Regions();
        MapToken token =
                args[4].equals("identity")
                        ? IdentityMapOps.token(REGION_BYTES, REGION_BYTES)
                        : new Region();
        for (int i = 1; i < 3; i++) {
            RingMapping other = new RingMapping(way, batch, elements, proxy(ops, i), token);
            for (int round = 0; round < 20; round++) {
                other.mapped();
            }
        }
        RingMapping mapping = new RingMapping(way, batch, elements, ops, token);
        for (int i = 0; i < WARM_UP; i++) {
            mapping.mapped();
            mapping.wired();
        }
        Series cost = new Series();
        long end = System.nanoTime() + Integer.parseInt(args[2]) * 1_000_000L;
        for (int i = 0; i < LEAST_ROUNDS || System.nanoTime() < end; i++) {
            boolean mappedFirst = (i & 1) == 0;
            double mapped = mappedFirst ? mapping.mapped() : 0;
            double wired = mapping.wired();
            mapped = mappedFirst ? mapped : mapping.mapped();
            cost.add((mapped - wired) / elements);
        }
        System.out.println("nanos " + cost.median());
        System.exit(0);
    }

    private double mapped() {
        list.clear();
        for (int e = 0; e < elements; e++) {
            list.out(memory, e * SEGMENT_BYTES, SEGMENT_BYTES);
        }
        return nanosPerBuffer();
    }

    private double wired() {
        list.clear();
        for (int e = 0; e < elements; e++) {
            list.outMapped(memory.address() + e * SEGMENT_BYTES, SEGMENT_BYTES);
        }
        return nanosPerBuffer();
    }

    private double nanosPerBuffer() {
        long start = System.nanoTime();
        solo.run(BUFFERS);
        return (System.nanoTime() - start) / (double) BUFFERS;
    }

    /** The same operations in another class. */
    private static MapOps proxy(MapOps ops, int number) {
        Class<?>[][] interfaces = {
            {MapOps.class}, {MapOps.class, Runnable.class}, {MapOps.class, Comparable.class}
        };
        return (MapOps)
                Proxy.newProxyInstance(
                        RingMapping.class.getClassLoader(),
                        interfaces[number - 1],
                        (self, method, arguments) -> method.invoke(ops, arguments));
    }

    private static final class Regions extends RegionMapOps {}

    /** Everything in one region whose handles are addresses, so that any device's end finds it. */
    private static final class Region extends RegionMemory {
        Region() {
            MemorySegment region = Arena.global().allocate(2L * REGION_BYTES, 4096);
            super(new RegionPool(region, region.address(), REGION_BYTES));
        }

        @Override
        protected void unmap(RegionPool region, int left) {}
    }
}
