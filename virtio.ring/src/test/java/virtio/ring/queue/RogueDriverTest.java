package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;

/** A driver that breaks promises towards the device's end of a split queue, by hand-made tables. */
class RogueDriverTest {
    private static final int SIZE = 8;
    private static final int NEXT = Descriptor.NEXT;
    private static final int WRITE = Descriptor.WRITE;
    private static final int INDIRECT = Descriptor.INDIRECT;

    private static final long BASE = 0x10_0000;
    private static final long AVAILABLE = BASE + 0x1000;
    private static final long USED = BASE + 0x2000;
    private static final long TABLE = BASE + 0x3000;
    private static final long DATA = BASE + 0x8000;
    private static final long READ_ONLY = 0x80_0000;

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment memory = shared.allocate(0x10000, 4096);
    private final MemorySegment readOnly = shared.allocate(0x1000, 4096);

    /** Two regions that are neighbours for the driver and not for us. */
    private final MemorySegment after = shared.allocate(0x1000, 4096);

    private final Regions regions =
            new Regions()
                    .share(BASE, memory)
                    .shareReadOnly(READ_ONLY, readOnly)
                    .share(BASE + 0x10000, after);
    private Rig rig;
    private DeviceEnd device;
    private Chain chain;
    private int available;

    @BeforeEach
    void start() throws Exception {
        start(Features.of(Feature.VERSION_1, Feature.INDIRECT_DESC));
    }

    private void start(Features features) throws Exception {
        if (rig != null) {
            rig.close();
        }
        rig = new Rig(Mapped.identity(), features);
        device =
                DeviceEnd.start(
                        3, new QueueLayout(SIZE, BASE, AVAILABLE, USED), features, regions, rig);
        chain = device.newChain();
    }

    @AfterEach
    void stop() {
        rig.close();
        shared.close();
        arena.close();
    }

    private void descriptor(long table, int i, long handle, long length, int flags, int next) {
        long at = memory.address() + (table - BASE) + 16L * i;
        RingMemory.set64(at, handle);
        RingMemory.set64(at + 8, length | (long) flags << 32 | (long) next << 48);
    }

    private void descriptor(int i, long handle, long length, int flags, int next) {
        descriptor(BASE, i, handle, length, flags, next);
    }

    private void expose(int head) {
        long ring = memory.address() + (AVAILABLE - BASE);
        RingMemory.set16(ring + SplitRing.RING + 2L * (available % SIZE), head);
        available++;
        RingMemory.setRelease16(ring + SplitRing.IDX, available);
    }

    private void broken(String sentence) {
        assertFalse(device.next(chain));
        assertEquals("queue 3: " + sentence, device.broken());
        assertEquals(List.of(device.broken()), rig.deviceBroken);
        descriptor(0, DATA, 1, 0, 0);
        expose(0);
        assertFalse(device.next(chain));
        device.notifyDriver();
        device.serve(new OneBackend(q -> q.next(chain)));
        assertEquals(0, rig.interrupts);
        assertEquals(1, rig.deviceBroken.size());
        assertEquals(0, RingMemory.get16(memory.address() + (USED - BASE) + SplitRing.IDX));
    }

    @Test
    void headOutOfRange() {
        expose(SIZE);
        broken("available descriptor 8, the limit is 7");
    }

    @Test
    void availableIndexThatJumped() {
        RingMemory.setRelease16(memory.address() + (AVAILABLE - BASE) + 2, SIZE + 1);
        broken("the available index jumped by 9, the limit is 8");
    }

    @Test
    void nextOutOfRange() {
        descriptor(0, DATA, 8, NEXT, SIZE);
        expose(0);
        broken("next descriptor 8, the limit is 7");
    }

    @Test
    @Tag("DRV-SPLIT-004")
    void loop() {
        descriptor(0, DATA, 8, NEXT, 1);
        descriptor(1, DATA, 8, NEXT, 0);
        expose(0);
        broken("chain of more than 8 descriptors, which is the limit");
    }

    @Test
    @Tag("DRV-SPLIT-008")
    void chainOfExactlyTheQueueSize() {
        for (int i = 0; i < SIZE; i++) {
            descriptor(i, DATA + i * 16, 16, i < SIZE - 1 ? NEXT : 0, i + 1);
        }
        expose(0);
        assertTrue(device.next(chain));
        assertEquals(16 * SIZE, chain.readableBytes());
    }

    @Test
    @Tag("DRV-SPLIT-006")
    void indirectWithoutTheFeature() throws Exception {
        start(Features.of(Feature.VERSION_1));
        descriptor(0, TABLE, 16, INDIRECT, 0);
        expose(0);
        broken("an indirect descriptor without INDIRECT_DESC negotiated");
    }

    @Test
    @Tag("DRV-SPLIT-007")
    void indirectInIndirect() {
        descriptor(0, TABLE, 16, INDIRECT, 0);
        descriptor(TABLE, 0, TABLE, 16, INDIRECT, 0);
        expose(0);
        broken("an indirect descriptor within an indirect table");
    }

    @Test
    @Tag("DRV-SPLIT-009")
    void indirectWithNext() {
        descriptor(0, TABLE, 16, INDIRECT | NEXT, 1);
        expose(0);
        broken("a descriptor with both INDIRECT and NEXT");
    }

    @Test
    void indirectTableOfOddLength() {
        descriptor(0, TABLE, 24, INDIRECT, 0);
        expose(0);
        broken("indirect table of 24 bytes, limits are 16 and 16384 in steps of 16");
    }

    @Test
    void indirectTableOfNoLength() {
        descriptor(0, TABLE, 0, INDIRECT, 0);
        expose(0);
        broken("indirect table of 0 bytes, limits are 16 and 16384 in steps of 16");
    }

    @Test
    void indirectTableTooLong() {
        descriptor(0, TABLE, 16400, INDIRECT, 0);
        expose(0);
        broken("indirect table of 16400 bytes, limits are 16 and 16384 in steps of 16");
    }

    @Test
    void indirectTableThatIsNotShared() {
        descriptor(0, 0x5000, 16, INDIRECT, 0);
        expose(0);
        broken("16 bytes at 0x5000 are not shared by the driver for reading");
    }

    @Test
    void nextOutOfRangeInATable() {
        descriptor(0, TABLE, 32, INDIRECT, 0);
        descriptor(TABLE, 0, DATA, 8, NEXT, 2);
        expose(0);
        broken("next descriptor 2 in an indirect table, the limit is 1");
    }

    @Test
    void loopInATable() {
        descriptor(0, TABLE, 32, INDIRECT, 0);
        descriptor(TABLE, 0, DATA, 8, NEXT, 1);
        descriptor(TABLE, 1, DATA, 8, NEXT, 0);
        expose(0);
        broken("indirect chain of more than 2 descriptors, which is the limit");
    }

    @Test
    @Tag("DRV-SPLIT-002")
    void readableAfterWritable() {
        descriptor(0, DATA, 8, WRITE | NEXT, 1);
        descriptor(1, DATA, 8, 0, 0);
        expose(0);
        broken("a device-readable descriptor follows a device-writable one");
    }

    @Test
    void emptyDescriptor() {
        descriptor(0, DATA, 0, WRITE, 0);
        expose(0);
        broken("descriptor of 0 bytes, the limit is 1");
    }

    @Test
    void memoryThatIsNotShared() {
        descriptor(0, 0x5000, 8, 0, 0);
        expose(0);
        broken("8 bytes at 0x5000 are not shared by the driver for reading");
    }

    @Test
    void memoryThatEndsTooEarly() {
        descriptor(0, BASE + 0x10000 + 0xFF0, 0x20, 0, 0);
        expose(0);
        broken("32 bytes at 0x110ff0 are not shared by the driver for reading");
    }

    @Test
    void memoryThatMustNotBeWritten() {
        descriptor(0, READ_ONLY, 8, WRITE, 0);
        expose(0);
        broken("8 bytes at 0x800000 are not shared by the driver for writing");
    }

    @Test
    void memoryAroundTheEndOfAllHandles() {
        descriptor(0, -8, 16, 0, 0);
        expose(0);
        broken("16 bytes at 0xfffffffffffffff8 are not shared by the driver for reading");
    }

    @Test
    @Tag("DRV-SPLIT-004")
    void moreThan32BitsOfBytes() {
        Regions huge = new Regions();
        descriptor(0, DATA, 0xFFFFFFFFL, NEXT, 1);
        descriptor(1, DATA, 0xFFFFFFFFL, 0, 0);
        expose(0);
        assertNull(device.broken());
        var all =
                new virtio.api.transport.DriverMemory() {
                    @Override
                    public long translate(long mapHandle, long length, boolean write) {
                        return length > 0x10000
                                ? 4096
                                : regions.translate(mapHandle, length, write);
                    }

                    @Override
                    public long reach(long mapHandle, boolean write) {
                        return huge.reach(mapHandle, write);
                    }
                };
        try {
            device =
                    DeviceEnd.start(
                            3,
                            new QueueLayout(SIZE, BASE, AVAILABLE, USED),
                            rig.features,
                            all,
                            rig);
        } catch (VirtioException e) {
            throw new AssertionError(e);
        }
        chain = device.newChain();
        broken("buffer of 8589934590 bytes, the limit is 4294967296");
    }

    @Test
    @Tag("DEV-SPLIT-006")
    @Tag("DEV-SPLIT-005")
    void chainFollowedByATable() {
        descriptor(0, DATA, 8, NEXT, 5);
        descriptor(5, TABLE, 32, INDIRECT | WRITE, 0);
        descriptor(TABLE, 0, DATA + 8, 4, NEXT, 1);
        descriptor(TABLE, 1, DATA + 64, 4, WRITE, 0);
        memory.set(ValueLayout.JAVA_LONG, 0x8000, 0x1122334455667788L);
        memory.set(ValueLayout.JAVA_INT, 0x8008, 0x99AABBCC);
        expose(0);
        assertTrue(device.next(chain));
        assertEquals(12, chain.readableBytes());
        assertEquals(4, chain.writableBytes());
        assertEquals(0x99AABBCC11223344L, chain.read64(4));
        device.complete(chain, 4);
        assertEquals(1, RingMemory.get16(memory.address() + (USED - BASE) + SplitRing.IDX));
    }

    @Test
    void elementAcrossRegions() {
        descriptor(0, BASE + 0xFFFC, 8, WRITE, 0);
        expose(0);
        assertTrue(device.next(chain));
        assertEquals(8, chain.writableBytes());
        MemorySegment eight = arena.allocate(8);
        eight.set(ValueLayout.JAVA_LONG, 0, 0x0807060504030201L);
        chain.write(0, eight, 0, 8);
        assertEquals(0x04030201, memory.get(ValueLayout.JAVA_INT, 0xFFFC));
        assertEquals(0x08070605, after.get(ValueLayout.JAVA_INT, 0));
        assertEquals(4, chain.writable(0, 8).byteSize());
        assertEquals(4, chain.writable(4, 8).byteSize());
        chain.fill(2, 4);
        assertEquals(0x00000201, memory.get(ValueLayout.JAVA_INT, 0xFFFC));
        assertEquals(0x08070000, after.get(ValueLayout.JAVA_INT, 0));
    }

    @Test
    void tableAcrossRegions() {
        descriptor(0, BASE + 0xFFF0, 32, INDIRECT, 0);
        descriptor(BASE + 0xFFF0, 0, DATA, 8, NEXT, 1);
        RingMemory.set64(after.address(), DATA + 8);
        RingMemory.set64(after.address() + 8, 8);
        expose(0);
        assertTrue(device.next(chain));
        assertEquals(16, chain.readableBytes());
    }

    @Test
    void descriptorsAreReadOnce() {
        descriptor(0, DATA, 8, WRITE, 0);
        expose(0);
        assertTrue(device.next(chain));
        descriptor(0, 0x5000, 1 << 30, WRITE, 0);
        chain.write8(7, 1);
        assertEquals(8, chain.writableBytes());
        assertEquals(1, memory.get(ValueLayout.JAVA_BYTE, 0x8007));
        device.complete(chain, 8);
        assertNull(device.broken());
    }

    @Test
    void startRefusesWhatItCannotServe() {
        start(
                "queue 3: 6 descriptors, a split queue has a power of two from 1 to 32768",
                new QueueLayout(6, BASE, AVAILABLE, USED));
        start(
                "queue 3: 0 descriptors, a split queue has a power of two from 1 to 32768",
                new QueueLayout(0, BASE, AVAILABLE, USED));
        start(
                "queue 3: the descriptor table, 128 bytes at 0x5000, is not in memory that the"
                        + " driver shared",
                new QueueLayout(8, 0x5000, AVAILABLE, USED));
        start(
                "queue 3: the descriptor table at 0x100008 is not aligned to 16 bytes",
                new QueueLayout(8, BASE + 8, AVAILABLE, USED));
        start(
                "queue 3: the available ring at 0x101001 is not aligned to 2 bytes",
                new QueueLayout(8, BASE, AVAILABLE + 1, USED));
        start(
                "queue 3: the used ring at 0x102002 is not aligned to 4 bytes",
                new QueueLayout(8, BASE, AVAILABLE, USED + 2));
        start(
                "queue 3: the used ring, 70 bytes at 0x800000, is not in memory that the driver"
                        + " shared",
                new QueueLayout(8, BASE, AVAILABLE, READ_ONLY));
    }

    private void start(String sentence, QueueLayout layout) {
        assertEquals(
                sentence,
                assertThrows(
                                VirtioException.class,
                                () -> DeviceEnd.start(3, layout, rig.features, regions, rig))
                        .getMessage());
    }

    @Test
    void misuseByTheBackend() throws Exception {
        descriptor(0, DATA, 8, NEXT, 1);
        descriptor(1, DATA + 8, 4, WRITE, 0);
        expose(0);
        assertThrows(IllegalArgumentException.class, () -> device.complete(chain, 0));
        assertTrue(device.next(chain));
        assertThrows(IllegalArgumentException.class, () -> device.next(chain));
        assertThrows(IllegalArgumentException.class, () -> device.complete(chain, 5));
        assertThrows(IndexOutOfBoundsException.class, () -> chain.read64(1));
        assertThrows(IndexOutOfBoundsException.class, () -> chain.read8(-1));
        assertThrows(IndexOutOfBoundsException.class, () -> chain.write8(4, 0));
        assertThrows(IndexOutOfBoundsException.class, () -> chain.fill(0, Long.MAX_VALUE));
        assertThrows(IndexOutOfBoundsException.class, () -> chain.readable(8, 1));
        assertTrue(chain.readable(0, 100).isReadOnly());
        assertEquals(8, chain.readable(0, 100).byteSize());
        DeviceEnd other =
                DeviceEnd.start(
                        4,
                        new QueueLayout(SIZE, BASE, AVAILABLE, USED),
                        rig.features,
                        regions,
                        rig);
        assertThrows(IllegalArgumentException.class, () -> other.complete(chain, 0));
        assertEquals(1, device.stop());
        assertThrows(IllegalStateException.class, () -> chain.read8(0));
        device.complete(chain, 4);
        assertEquals(0, RingMemory.get16(memory.address() + (USED - BASE) + SplitRing.IDX));
    }
}
