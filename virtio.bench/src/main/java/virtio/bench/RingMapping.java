package virtio.bench;

import virtio.api.ScatterList;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapOps;
import virtio.linux.Linux;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.Proxy;

/**
 * What it costs that a queue maps by the operations of its transport: rounds of both ends in one
 * thread, once with segments that identity operations map, once with the same addresses handed out
 * by the caller, as a ring with a hard-wired identity would do.
 *
 * <p>Prints lines of a name and a number, as {@link RingFork} does.
 */
public final class RingMapping {
    private static final int BUFFERS = 65536;
    private static final int SEGMENT_BYTES = 64;
    private static final int WARM_UP = 100;
    private static final int LEAST_ROUNDS = 20;

    private final int elements;
    private final ScatterList list;
    private final MemorySegment memory = Arena.global().allocate(4096, 4096);
    private final RingEnds.Solo solo;

    private RingMapping(RingWay way, int batch, int elements, MapOps ops) throws Exception {
        this.elements = elements;
        list = new ScatterList(elements);
        var token = IdentityMapOps.token(1 << 20, 1 << 20);
        DriverEnd driver = RingEnds.driver(way, ops, token);
        solo = new RingEnds.Solo(way, driver, batch, list);
    }

    /**
     * Arguments: layout, batch, milliseconds, segments of a buffer, implementations of the
     * operations that the JVM has seen, processor.
     */
    public static void main(String[] args) throws Exception {
        RingWay way = new RingWay(args[0], "poll");
        int batch = Integer.parseInt(args[1]);
        int elements = Integer.parseInt(args[3]);
        Linux.pin(Integer.parseInt(args[5]));
        IdentityMapOps identity = new IdentityMapOps();
        for (int i = 1; i < Integer.parseInt(args[4]); i++) {
            RingMapping other = new RingMapping(way, batch, elements, proxy(identity, i));
            for (int round = 0; round < 20; round++) {
                other.mapped();
            }
        }
        RingMapping mapping = new RingMapping(way, batch, elements, identity);
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
}
