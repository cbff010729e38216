package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/**
 * The same ring over four kinds of map operations, which it cannot tell apart: in every layout and
 * with every feature, all that was mapped is given back, whatever happens to the queue.
 */
class MapOpsTest {
    private static final byte SECRET = 0x5e;
    private static final byte SENT = 0x33;
    private static final byte SCRIBBLE = 0x77;

    private final Arena arena = Arena.ofShared();
    private final ScatterList list = new ScatterList(8);
    private final List<Chain> open = new ArrayList<>();
    private Rig rig;

    /** For the tests' buffers: two halves, one for each direction. */
    private MemorySegment out;

    private MemorySegment in;
    private int lent;

    static Stream<Arguments> rings() {
        return Mapped.KINDS.stream()
                .flatMap(kind -> EndToEndTest.rings().stream().map(f -> Arguments.of(kind, f)));
    }

    private void start(String kind, Features features) throws Exception {
        rig = EndToEndTest.rig(kind, features).start(16);
        int ring = rig.mapped.live().getAsInt();
        MemorySegment buffers = rig.mapped.buffers(arena, 32768);
        lent = rig.mapped.live().getAsInt() - ring;
        out = buffers.asSlice(0, 16384);
        in = buffers.asSlice(16384);
        out.fill(SENT);
        in.fill(SECRET);
    }

    /**
     * Nothing is mapped any more when the queue is closed, and the operations have no complaint.
     */
    @AfterEach
    void nothingIsLeft() {
        if (rig != null) {
            rig.device.stop();
            rig.driver.close();
            assertEquals(lent, rig.mapped.live().getAsInt(), "live mappings");
            rig.close();
        }
        arena.close();
    }

    private void take() {
        Chain chain = rig.device.newChain();
        while (rig.device.next(chain)) {
            open.add(chain);
            chain = rig.device.newChain();
        }
        assertNull(rig.device.broken());
    }

    private boolean add(long token, int outs, int ins) {
        list.clear();
        for (int i = 0; i < outs; i++) {
            list.out(out, 1024 * (token % 16) + 100 * i, 100);
        }
        for (int i = 0; i < ins; i++) {
            list.in(in, 1024 * (token % 16) + 100 * i, 100);
        }
        return rig.driver.add(list, token);
    }

    /** The device's view of writable memory shows no old contents, that of readable all of it. */
    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void directionsAreHonoured(String kind, Features features) throws Exception {
        start(kind, features);
        boolean shares = rig.mapped.shares();
        for (long token = 0; token < 100; token++) {
            in.fill(SECRET);
            assertTrue(add(token, 1 + (int) token % 3, 1 + (int) token % 2));
            rig.driver.kick();
            take();
            Chain chain = open.removeLast();
            for (long at = 0; at < chain.readableBytes(); at++) {
                assertEquals(SENT, (byte) chain.read8(at));
            }
            for (long at = 0; at < chain.writableBytes(); ) {
                MemorySegment piece = chain.writable(at, chain.writableBytes() - at);
                for (byte b : piece.toArray(ValueLayout.JAVA_BYTE)) {
                    assertTrue(shares || b != SECRET, "old contents reach the device");
                }
                at += piece.byteSize();
            }
            if (!shares) {
                // As a device that does not keep to directions would.
                MemorySegment piece = chain.readable(0, 100);
                RingMemory.slice(piece.address(), piece.byteSize()).fill(SCRIBBLE);
            }
            chain.write8(0, 1);
            chain.write8(chain.writableBytes() - 1, 2);
            rig.device.complete(chain, chain.writableBytes());
            assertEquals(token, rig.driver.get());
            long at = 1024 * (token % 16);
            assertEquals(1, in.get(ValueLayout.JAVA_BYTE, at));
            assertEquals(2, in.get(ValueLayout.JAVA_BYTE, at + rig.driver.usedLength() - 1));
            assertEquals(-1, out.mismatch(MemorySegment.ofArray(sent())), "written back");
        }
    }

    private static byte[] sent() {
        byte[] sent = new byte[16384];
        Arrays.fill(sent, SENT);
        return sent;
    }

    /** Mapped once by the driver, used by several buffers, brought up to date range by range. */
    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void premappedRangesAreSynchronised(String kind, Features features) throws Exception {
        start(kind, features);
        DeviceMapping mapping = rig.driver.mapping();
        long read = mapping.map(out, 0, 4096, Direction.TO_DEVICE);
        long written = mapping.map(in, 0, 4096, Direction.FROM_DEVICE);
        assertFalse(mapping.error(read) || mapping.error(written));
        int mapped = 0;
        for (int i = 0; i < 40; i++) {
            int at = 100 * i;
            out.set(ValueLayout.JAVA_BYTE, at, (byte) i);
            mapping.syncForDevice(read + at, 100, Direction.TO_DEVICE);
            list.clear().outMapped(read + at, 60).outMapped(read + at + 60, 40);
            assertTrue(rig.driver.add(list.inMapped(written + at, 100), i));
            if (i == 0) {
                mapped = rig.mapped.live().getAsInt();
            }
            rig.driver.kick();
            take();
            Chain chain = open.removeLast();
            assertEquals(i, chain.read8(0));
            chain.write8(3, i);
            rig.device.complete(chain, 4);
            assertEquals(i, rig.driver.get());
            assertEquals(4, rig.driver.usedLength());
            assertEquals(mapped, rig.mapped.live().getAsInt(), "the queue unmaps nothing");
            if (!rig.mapped.shares()) {
                assertTrue(mapping.needSync(written));
                assertEquals(SECRET, in.get(ValueLayout.JAVA_BYTE, at + 3));
            }
            mapping.syncForCpu(written + at, 4, Direction.FROM_DEVICE);
            assertEquals(i, in.get(ValueLayout.JAVA_BYTE, at + 3));
        }
        mapping.unmap(read, 4096, Direction.TO_DEVICE);
        mapping.unmap(written, 4096, Direction.FROM_DEVICE);
    }

    /** Heap arrays lie where no device can look, whichever operations there are. */
    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void heapArraysAreCarried(String kind, Features features) throws Exception {
        start(kind, features);
        byte[] heap = new byte[300];
        for (int i = 0; i < 50; i++) {
            heap[7] = (byte) i;
            list.clear().out(MemorySegment.ofArray(heap), 0, 150);
            rig.driver.add(list.in(MemorySegment.ofArray(heap), 150, 150), i);
            rig.driver.kick();
            take();
            Chain chain = open.removeLast();
            chain.write8(9, chain.read8(7));
            rig.device.complete(chain, 150);
            assertEquals(i, rig.driver.get());
            assertEquals(i, heap[159]);
            assertEquals(i, heap[7]);
        }
    }

    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void whatIsOutstandingIsGivenBack(String kind, Features features) throws Exception {
        start(kind, features);
        for (int round = 0; round < 20; round++) {
            int added = 0;
            while (added < 16 && add(added, 1, 1 + round % 2)) {
                added++;
            }
            rig.driver.kick();
            take();
            rig.device.complete(open.getFirst(), 0);
            assertEquals(0, rig.driver.get());
            int outstanding = added - 1;
            List<Long> recycled = new ArrayList<>();
            switch (round % 3) {
                case 0 -> rig.driver.reset(recycled::add);
                case 1 -> rig.driver.resize(rig.driver.size() == 16 ? 8 : 16, recycled::add);
                default -> {
                    rig.device.stop();
                    for (long t; (t = rig.driver.detachUnused()) != Virtqueue.NONE; ) {
                        recycled.add(t);
                    }
                    rig.driver.reset(recycled::add);
                }
            }
            assertEquals(outstanding, recycled.size());
            assertEquals(rig.driver.size(), rig.driver.free());
            open.clear();
        }
        add(1, 2, 2);
        rig.driver.kick();
    }

    /** A broken queue gives back what it had, and works again after a reset. */
    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void aBrokenQueueIsMendedByAReset(String kind, Features features) throws Exception {
        start(kind, features);
        assertTrue(add(1, 1, 1));
        assertTrue(add(2, 2, 2));
        rig.driver.kick();
        long deviceArea = rig.driver.layout().deviceArea();
        if (features.has(Feature.RING_PACKED)) {
            long slot =
                    rig.mapped.memory().translate(rig.driver.layout().descriptorArea(), 16, true);
            long used = (long) (PackedRing.AVAIL | PackedRing.USED) << PackedRing.FLAGS_SHIFT;
            RingMemory.setRelease64(slot + PackedRing.WORD, 99L << PackedRing.ID_SHIFT | used);
        } else {
            long ring = rig.mapped.memory().translate(deviceArea, 4, true);
            RingMemory.setRelease16(ring + SplitRing.IDX, 99);
        }
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertNotNull(rig.driver.broken());
        assertFalse(add(3, 1, 1));
        assertFalse(rig.driver.notifyDevice());
        List<Long> recycled = new ArrayList<>();
        rig.driver.reset(recycled::add);
        assertEquals(List.of(1L, 2L), recycled.stream().sorted().toList());
        assertNull(rig.driver.broken());
        assertTrue(add(4, 1, 1));
        rig.driver.kick();
        take();
        rig.device.complete(open.removeLast(), 0);
        assertEquals(4, rig.driver.get());
    }

    /** More than one mapping takes is refused by the queue; exactly that much is not. */
    @ParameterizedTest(name = "{0}, features {1}")
    @MethodSource("rings")
    void theLargestMappingIsOneElement(String kind, Features features) throws Exception {
        start(kind, features);
        long max = rig.driver.mapping().maxMappingSize();
        assumeFalse(max > 1 << 20, "one mapping takes all memory");
        MemorySegment large = arena.allocate(max + 1);
        large.set(ValueLayout.JAVA_BYTE, max - 1, SENT);
        assertTrue(rig.driver.add(list.clear().out(large, 0, max), 1));
        rig.driver.kick();
        take();
        assertEquals(SENT, (byte) open.getFirst().read8(max - 1));
        rig.device.complete(open.getFirst(), 0);
        assertEquals(1, rig.driver.get());
        assertThrows(
                IllegalArgumentException.class,
                () -> rig.driver.add(list.clear().out(large, 0, max + 1), 2));
    }
}
