package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/** The rogue, driven by a driver that is a few stores long. */
class RogueTransportTest {
    private static final ValueLayout.OfShort U16 = ValueLayout.JAVA_SHORT_UNALIGNED;
    private static final ValueLayout.OfInt U32 = ValueLayout.JAVA_INT_UNALIGNED;
    private static final ValueLayout.OfLong U64 = ValueLayout.JAVA_LONG_UNALIGNED;
    private static final int SIZE = 8;

    private final CopyingMapOps ops = new CopyingMapOps(1 << 20);
    private final List<String> heard = new ArrayList<>();
    private RogueTransport rogue;
    private CoherentMemory ring;
    private int available;

    @BeforeEach
    void make() throws Exception {
        rogue =
                new RogueTransport(
                        ops,
                        DeviceType.BLOCK,
                        Features.of(Feature.VERSION_1, Feature.EVENT_IDX, Feature.RING_RESET),
                        1,
                        SIZE,
                        new byte[] {1, 2, 3, 4},
                        (queue, readable, writable) -> {
                            MemorySegment from = readable.getFirst();
                            writable.getFirst().copyFrom(from);
                            return from.byteSize();
                        });
        rogue.listen(
                new TestListener() {
                    @Override
                    public void queueUsed(int queue) {
                        heard.add("used " + queue);
                    }

                    @Override
                    public void configChanged() {
                        heard.add("config");
                    }

                    @Override
                    public void gone(VirtioException reason) {
                        heard.add("gone");
                    }
                });
        rogue.accept(Features.of(Feature.VERSION_1, Feature.EVENT_IDX));
        ring = ops.alloc(ops.token(), 3 * 4096);
        long at = ring.mapHandle();
        rogue.startQueue(0, new QueueLayout(SIZE, at, at + 4096, at + 8192));
    }

    /** Makes a buffer of two elements available; what the device wrote is read when it is used. */
    private long[] add(int head, MemorySegment out, MemorySegment in) {
        long from = ops.mapPage(ops.token(), out, 0, out.byteSize(), Direction.TO_DEVICE, 0);
        long to = ops.mapPage(ops.token(), in, 0, in.byteSize(), Direction.FROM_DEVICE, 0);
        descriptor(head, from, out.byteSize(), 1, head + 1);
        descriptor(head + 1, to, in.byteSize(), 2, 0);
        MemorySegment area = ring.segment().asSlice(4096);
        area.set(U16, 4 + 2L * (available % SIZE), (short) head);
        area.set(U16, 2, (short) ++available);
        return new long[] {from, to};
    }

    private void descriptor(int index, long handle, long length, int flags, int next) {
        MemorySegment at = ring.segment().asSlice(16L * index, 16);
        at.set(U64, 0, handle);
        at.set(U32, 8, (int) length);
        at.set(U16, 12, (short) flags);
        at.set(U16, 14, (short) next);
    }

    private int usedIndex() {
        return ring.segment().get(U16, 8192 + 2);
    }

    private int usedId(int element) {
        return ring.segment().get(U32, 8192 + 4 + 8L * element);
    }

    private int usedLength(int element) {
        return ring.segment().get(U32, 8192 + 8 + 8L * element);
    }

    @Test
    void aDeviceThatBehavesServesItsBuffers() {
        MemorySegment out = MemorySegment.ofArray(new byte[] {5, 6, 7, 8});
        MemorySegment in = MemorySegment.ofArray(new byte[4]);
        long[] handles = add(2, out, in);
        assertEquals(0, usedIndex());
        rogue.notifyQueue(0, 0);
        assertEquals(1, rogue.notifications(0));
        assertEquals(1, rogue.serve(0));
        assertEquals(1, usedIndex());
        assertEquals(2, usedId(0));
        assertEquals(4, usedLength(0));
        assertEquals(1, ring.segment().get(U16, 8192 + 4 + 8 * SIZE), "available event");
        ops.unmapPage(ops.token(), handles[0], 4, Direction.TO_DEVICE, 0);
        ops.unmapPage(ops.token(), handles[1], 4, Direction.FROM_DEVICE, 0);
        assertEquals(-1, in.mismatch(out));
        assertEquals(0, rogue.serve(0));
        assertEquals(1, ops.live());
    }

    private void serveWith(Misbehaviour how) {
        rogue.misbehave(how);
        add(2, MemorySegment.ofArray(new byte[4]), MemorySegment.ofArray(new byte[4]));
        rogue.serve(0);
    }

    @Test
    void usedIdIsOutOfRange() {
        serveWith(Misbehaviour.USED_ID_OUT_OF_RANGE);
        assertEquals(SIZE, usedId(0));
        assertEquals(1, usedIndex());
    }

    @Test
    void usedIdIsOfNoAvailableBuffer() {
        serveWith(Misbehaviour.USED_ID_NOT_AVAILABLE);
        assertNotEquals(2, usedId(0));
        assertTrue(usedId(0) >= 0 && usedId(0) < SIZE);
    }

    @Test
    void lengthIsTooLong() {
        serveWith(Misbehaviour.LENGTH_TOO_LONG);
        assertEquals(5, usedLength(0));
    }

    @Test
    void indexJumps() {
        serveWith(Misbehaviour.INDEX_JUMPS);
        assertEquals(SIZE + 1, usedIndex());
    }

    @Test
    void statusLies() throws Exception {
        rogue.misbehave(Misbehaviour.STATUS_NEVER_SET);
        rogue.status(DeviceStatus.ACKNOWLEDGE);
        assertEquals(0, rogue.status());
        rogue.misbehave(Misbehaviour.FEATURES_OK_NEVER_SET);
        rogue.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.FEATURES_OK);
        assertEquals(DeviceStatus.ACKNOWLEDGE, rogue.status());
        rogue.misbehave(Misbehaviour.RESET_NEVER_DONE);
        rogue.status(0);
        assertNotEquals(0, rogue.status());
        rogue.misbehave(Misbehaviour.NONE);
        rogue.status(0);
        assertEquals(0, rogue.status());
    }

    @Test
    void generationNeverSettles() throws Exception {
        assertEquals(rogue.configGeneration(), rogue.configGeneration());
        rogue.misbehave(Misbehaviour.GENERATION_NEVER_SETTLES);
        assertNotEquals(rogue.configGeneration(), rogue.configGeneration());
    }

    @Test
    void deviceVanishesAtTheCallThatWasChosen() throws Exception {
        rogue.vanishAtCall(2);
        rogue.status();
        rogue.status();
        assertEquals(List.of(), heard);
        assertThrows(VirtioException.class, rogue::status);
        assertThrows(VirtioException.class, rogue::offered);
        assertEquals(List.of("gone"), heard);
        assertFalse(rogue.isClosed());
    }

    @Test
    void listenerHearsOfInterruptsAndChanges() throws Exception {
        int before = rogue.configGeneration();
        rogue.interrupt(0);
        rogue.changeConfig(1, 9);
        assertEquals(List.of("used 0", "config"), heard);
        assertNotEquals(before, rogue.configGeneration());
        byte[] all = new byte[4];
        rogue.readConfig(0, all);
        assertEquals(9, all[1]);
        assertThrows(VirtioException.class, () -> rogue.readConfig(2, all));
    }

    @Test
    void queueIsStoppedOnlyWhenThatWasNegotiated() throws Exception {
        assertFalse(rogue.stopQueue(0));
        rogue.accept(Features.of(Feature.VERSION_1, Feature.RING_RESET));
        assertTrue(rogue.stopQueue(0));
        add(0, MemorySegment.ofArray(new byte[1]), MemorySegment.ofArray(new byte[1]));
        assertEquals(0, rogue.serve(0));
    }
}
