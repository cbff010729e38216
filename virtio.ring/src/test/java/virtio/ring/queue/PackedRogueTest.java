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
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/** Broken promises on a packed queue, of either end towards the other, by hand-made descriptors. */
class PackedRogueTest {
    private static final int SIZE = 5;
    private static final int LAP_1 = PackedRing.AVAIL;
    private static final int USED_1 = PackedRing.AVAIL | PackedRing.USED;

    private static final long BASE = 0x10_0000;
    private static final long TABLE = BASE + 0x1000;
    private static final long DATA = BASE + 0x2000;

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment memory = shared.allocate(0x10000, 4096);
    private final MemorySegment buffer = arena.allocate(64, 8);
    private final ScatterList list = new ScatterList(2);
    private Rig rig;

    /** Serves {@link #memory}; not the ring of {@link #rig}. */
    private DeviceEnd device;

    private Chain chain;

    @BeforeEach
    void start() throws Exception {
        start(Features.of(Feature.VERSION_1, Feature.RING_PACKED, Feature.INDIRECT_DESC));
    }

    private void start(Features features) throws Exception {
        if (rig != null) {
            rig.close();
        }
        rig = new Rig(Mapped.identity(), features).start(SIZE);
        device = serve(new QueueLayout(SIZE, BASE, BASE + 0x800, BASE + 0x900));
        chain = device.newChain();
    }

    private DeviceEnd serve(QueueLayout layout) throws VirtioException {
        return DeviceEnd.start(3, layout, rig.features, new Regions().share(BASE, memory), rig);
    }

    @AfterEach
    void stop() {
        rig.close();
        shared.close();
        arena.close();
    }

    private void descriptor(long at, long handle, long length, int id, int flags) {
        long address = memory.address() + (at - BASE);
        RingMemory.set64(address, handle);
        RingMemory.setRelease64(address + 8, length | (long) id << 32 | (long) flags << 48);
    }

    private void refused(String sentence) {
        assertFalse(device.next(chain));
        assertEquals("queue 3: " + sentence, device.broken());
        assertEquals(List.of(device.broken()), rig.deviceBroken);
        assertFalse(device.next(chain));
        device.notifyDriver();
        assertEquals(0, rig.interrupts);
    }

    @Test
    @Tag("DRV-PACKED-007")
    void loop() {
        for (int i = 0; i < SIZE; i++) {
            descriptor(BASE + 16 * i, DATA, 1, 0, LAP_1 | Descriptor.NEXT);
        }
        refused("chain of more than 5 descriptors, which is the limit");
    }

    @Test
    @Tag("DRV-PACKED-015")
    void indirectInAList() {
        descriptor(BASE + 16, TABLE, 16, 0, LAP_1 | Descriptor.INDIRECT);
        descriptor(BASE, DATA, 1, 0, LAP_1 | Descriptor.NEXT);
        refused("a descriptor with both INDIRECT and NEXT");
    }

    @Test
    @Tag("DRV-PACKED-015")
    void indirectWithNext() {
        descriptor(BASE, TABLE, 16, 0, LAP_1 | Descriptor.INDIRECT | Descriptor.NEXT);
        refused("a descriptor with both INDIRECT and NEXT");
    }

    @Test
    @Tag("DRV-PACKED-013")
    void indirectInIndirect() {
        descriptor(TABLE, TABLE, 16, 0, Descriptor.INDIRECT);
        descriptor(BASE, TABLE, 16, 0, LAP_1 | Descriptor.INDIRECT);
        refused("an indirect descriptor within an indirect table");
    }

    @Test
    @Tag("DRV-PACKED-012")
    void indirectWithoutTheFeature() throws Exception {
        start(Features.of(Feature.VERSION_1, Feature.RING_PACKED));
        descriptor(BASE, TABLE, 16, 0, LAP_1 | Descriptor.INDIRECT);
        refused("an indirect descriptor without INDIRECT_DESC negotiated");
    }

    @Test
    void indirectTableOfOddLength() {
        descriptor(BASE, TABLE, 17, 0, LAP_1 | Descriptor.INDIRECT);
        refused("indirect table of 17 bytes, limits are 16 and 16384 in steps of 16");
    }

    @Test
    void indirectTableThatIsNotShared() {
        descriptor(BASE, 0x5000, 16, 0, LAP_1 | Descriptor.INDIRECT);
        refused("16 bytes at 0x5000 are not shared by the driver for reading");
    }

    @Test
    void emptyDescriptor() {
        descriptor(BASE, DATA, 0, 0, LAP_1);
        refused("descriptor of 0 bytes, the limit is 1");
    }

    @Test
    void memoryThatIsNotShared() {
        descriptor(BASE, 0x5000, 8, 0, LAP_1 | Descriptor.WRITE);
        refused("8 bytes at 0x5000 are not shared by the driver for writing");
    }

    @Test
    @Tag("DRV-PACKED-008")
    void readableAfterWritable() {
        descriptor(BASE + 16, DATA, 1, 0, LAP_1);
        descriptor(BASE, DATA, 1, 0, LAP_1 | Descriptor.NEXT | Descriptor.WRITE);
        refused("a device-readable descriptor follows a device-writable one");
    }

    @Test
    @Tag("DEV-PACKED-005")
    void descriptorsOfTheOtherLapAreNotAvailable() {
        descriptor(BASE, DATA, 1, 0, PackedRing.USED);
        assertFalse(device.next(chain));
        descriptor(BASE, DATA, 1, 0, USED_1);
        assertFalse(device.next(chain));
        descriptor(BASE, DATA, 1, 7, LAP_1);
        assertTrue(device.next(chain));
        device.complete(chain, 0);
        assertEquals(7L << 32 | (long) USED_1 << 48, RingMemory.get64(memory.address() + 8) & ~1L);
        assertNull(device.broken());
    }

    @Test
    void startRefusesWhatItCannotServe() {
        start(
                "queue 3: 32769 descriptors, a packed queue has 1 to 32768",
                new QueueLayout(32769, BASE, BASE, BASE));
        start(
                "queue 3: the driver event suppression at 0x100802 is not aligned to 4 bytes",
                new QueueLayout(SIZE, BASE, BASE + 0x802, BASE));
        start(
                "queue 3: the descriptor ring, 80 bytes at 0x5000, is not in memory that the driver"
                        + " shared",
                new QueueLayout(SIZE, 0x5000, BASE, BASE));
        start(
                "queue 3: goes on from descriptor 5, the limit is 4",
                new QueueLayout(SIZE, BASE, BASE + 0x800, BASE + 0x900, 5, null));
    }

    private void start(String sentence, QueueLayout layout) {
        assertEquals(
                sentence, assertThrows(VirtioException.class, () -> serve(layout)).getMessage());
    }

    /** Stopped and started again at every position, also where that is encoded as 0. */
    @Test
    void goesOnWhereItStopped() throws Exception {
        Chain one = rig.device.newChain();
        for (int i = 1; i < 40; i++) {
            assertTrue(rig.driver.add(list.clear().out(buffer, 0, 8), i));
            rig.driver.kick();
            assertTrue(rig.device.next(one), "buffer " + i);
            rig.device.complete(one, 0);
            QueueLayout at = rig.driver.layout();
            int position = rig.device.stop();
            rig.startQueue(
                    0,
                    new QueueLayout(
                            SIZE,
                            at.descriptorArea(),
                            at.driverArea(),
                            at.deviceArea(),
                            position,
                            null));
            one = rig.device.newChain();
            assertFalse(rig.device.next(one), "buffer " + i);
            assertEquals(i, rig.driver.get());
        }
    }

    private void use(int slot, long length, int id, int flags) {
        RingMemory.setRelease64(
                rig.driver.layout().descriptorArea() + 16L * slot + 8,
                length | (long) id << 32 | (long) flags << 48);
    }

    private void broken(String sentence) {
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals("queue 0 (test): " + sentence, rig.driver.broken());
        assertEquals(List.of(rig.driver.broken()), rig.driverBroken);
        assertFalse(rig.driver.add(list.clear().out(buffer, 0, 8), 9));
        assertFalse(rig.driver.kickPrepare());
        assertEquals(Virtqueue.NONE, rig.driver.get());
    }

    @Test
    void usedIdOutOfRange() {
        rig.driver.add(list.clear().in(buffer, 0, 8), 1);
        use(0, 0, SIZE, USED_1);
        broken("the device used buffer 5, the limit is 4");
    }

    @Test
    void usedIdThatIsNotOutstanding() {
        rig.driver.add(list.clear().in(buffer, 0, 8), 1);
        use(0, 0, 3, USED_1);
        broken("the device used buffer 3, which is not outstanding");
    }

    @Test
    void usedTwice() {
        rig.driver.add(list.clear().in(buffer, 0, 8), 1);
        rig.driver.kick();
        use(0, 8, 0, USED_1 | Descriptor.WRITE);
        use(1, 8, 0, USED_1 | Descriptor.WRITE);
        assertEquals(1, rig.driver.get());
        assertEquals(8, rig.driver.usedLength());
        broken("the device used buffer 0, which is not outstanding");
    }

    @Test
    void lengthBeyondWritableBytes() {
        rig.driver.add(list.clear().in(buffer, 0, 8), 1);
        use(0, 9, 0, USED_1 | Descriptor.WRITE);
        broken("the device wrote 9 bytes to buffer 0, the limit is 8");
    }

    @Test
    void lengthWithoutTheWriteFlagCountsWhereItCanBeOne() {
        rig.driver.add(list.clear().in(buffer, 0, 8), 1);
        rig.driver.add(list.clear().in(buffer, 0, 8), 2);
        use(0, 9, 0, USED_1);
        use(1, 8, 1, USED_1);
        assertEquals(1, rig.driver.get());
        assertEquals(0, rig.driver.usedLength());
        assertEquals(2, rig.driver.get());
        assertEquals(8, rig.driver.usedLength());
    }
}
