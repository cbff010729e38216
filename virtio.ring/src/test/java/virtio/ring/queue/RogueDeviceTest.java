package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** A device that breaks promises towards the driver's end of a split queue. */
class RogueDeviceTest {
    private final Arena arena = Arena.ofShared();
    private final MemorySegment buffer = arena.allocate(256, 8);
    private final ScatterList list = new ScatterList(4);
    private Rig rig;
    private long used;

    @BeforeEach
    void start() throws Exception {
        rig = new Rig(Mapped.identity(), Features.of(Feature.VERSION_1, Feature.RING_RESET));
        rig.start(8);
        used = rig.driver.layout().deviceArea();
        for (int i = 0; i < 3; i++) {
            rig.driver.add(list.clear().out(buffer, 0, 8).in(buffer, 64, 16), i);
        }
        rig.driver.kick();
    }

    @AfterEach
    void stop() {
        rig.close();
        arena.close();
    }

    private int head() {
        return RingMemory.get16(rig.driver.layout().driverArea() + SplitRing.RING);
    }

    private void use(int slot, long id, long length) {
        RingMemory.set64(used + SplitRing.RING + 8L * (slot & 7), id | length << 32);
        RingMemory.setRelease16(used + SplitRing.IDX, slot + 1);
    }

    private void broken(String sentence) {
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals("queue 0 (test): " + sentence, rig.driver.broken());
        assertEquals(List.of(rig.driver.broken()), rig.driverBroken);
        assertEquals(rig.driver.broken(), rig.driver.snapshot().broken());
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals(0, rig.driver.get(new long[4], new int[4]));
        assertFalse(rig.driver.add(list.clear().out(buffer, 0, 8), 9));
        assertFalse(rig.driver.kickPrepare());
        assertFalse(rig.driver.notifyDevice());
        assertFalse(rig.driver.kick() && rig.driver.notifyDevice());
        assertEquals(1, rig.driverBroken.size());
        rig.driver.interrupted();
        assertEquals(0, rig.callbacks);
        List<Long> left = new ArrayList<>();
        for (long t; (t = rig.driver.detachUnused()) != Virtqueue.NONE; ) {
            left.add(t);
        }
        assertEquals(3, left.size());
        assertEquals(8, rig.driver.free());
    }

    @Test
    void usedIdOutOfRange() {
        use(0, 8, 0);
        broken("the device used descriptor 8, the limit is 7");
    }

    @Test
    void usedIdBeyond31Bits() {
        use(0, 0xFFFFFFFFL, 0);
        broken("the device used descriptor 4294967295, the limit is 7");
    }

    @Test
    void usedIdThatIsNotOutstanding() {
        use(0, 7, 0);
        broken("the device used descriptor 7, which is not outstanding");
    }

    @Test
    void usedIdInTheMiddleOfAChain() {
        int second =
                (int)
                        (RingMemory.get64(rig.driver.layout().descriptorArea() + 16L * head() + 8)
                                >>> 48);
        use(0, second, 0);
        broken("the device used descriptor " + second + ", which is not outstanding");
    }

    @Test
    void usedTwice() {
        int head = head();
        use(0, head, 4);
        assertEquals(0, rig.driver.get());
        assertEquals(4, rig.driver.usedLength());
        use(1, head, 0);
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals(
                "queue 0 (test): the device used descriptor 0, which is not outstanding",
                rig.driver.broken());
    }

    @Test
    @Tag("DRV-SPLIT-017")
    void lengthBeyondWritableBytes() {
        use(0, head(), 17);
        broken("the device wrote 17 bytes to the buffer of descriptor 0, the limit is 16");
    }

    @Test
    void lengthBeyondWritableBytesInABurst() {
        int head = head();
        int second = RingMemory.get16(rig.driver.layout().driverArea() + SplitRing.RING + 2);
        use(0, second, 16);
        use(1, head, 0xFFFFFFFFL);
        long[] tokens = new long[4];
        int[] lengths = new int[4];
        assertEquals(1, rig.driver.get(tokens, lengths));
        assertEquals(1, tokens[0]);
        assertEquals(16, lengths[0]);
        assertEquals(
                "queue 0 (test): the device wrote 4294967295 bytes to the buffer of descriptor 0,"
                        + " the limit is 16",
                rig.driver.broken());
        assertEquals(1, rig.driverBroken.size());
    }

    @Test
    void indexThatJumped() {
        RingMemory.setRelease16(used + SplitRing.IDX, 4);
        broken("the used index jumped by 4, the limit is 3 outstanding");
    }

    @Test
    void indexThatWentBack() {
        RingMemory.setRelease16(used + SplitRing.IDX, 0xFFFF);
        broken("the used index jumped by 65535, the limit is 3 outstanding");
    }

    @Test
    void buffersThatWereNotMadeAvailableYetDoNotCount() {
        rig.driver.add(list.clear().out(buffer, 0, 8), 3);
        RingMemory.setRelease16(used + SplitRing.IDX, 4);
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals(
                "queue 0 (test): the used index jumped by 4, the limit is 3 outstanding",
                rig.driver.broken());
    }

    @Test
    void descriptorsAreNeverReadBack() {
        RingMemory.set64(rig.driver.layout().descriptorArea() + 8, -1L);
        RingMemory.set64(rig.driver.layout().descriptorArea() + 16, -1L);
        RingMemory.set64(rig.driver.layout().descriptorArea() + 24, -1L);
        use(0, head(), 3);
        assertEquals(0, rig.driver.get());
        assertEquals(3, rig.driver.usedLength());
        assertNull(rig.driver.broken());
    }

    @Test
    void resetMakesItWorkAgain() throws Exception {
        use(0, 8, 0);
        assertEquals(Virtqueue.NONE, rig.driver.get());
        List<Long> recycled = new ArrayList<>();
        rig.driver.reset(recycled::add);
        recycled.sort(null);
        assertEquals(List.of(0L, 1L, 2L), recycled);
        assertNull(rig.driver.broken());
        rig.driver.add(list.clear().out(buffer, 0, 8), 5);
        rig.driver.kick();
        var chain = rig.device.newChain();
        rig.device.next(chain);
        rig.device.complete(chain, 0);
        assertEquals(5, rig.driver.get());
        assertEquals(4, rig.driver.snapshot().added());
    }
}
