package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/**
 * What map operations promise, one mapping at a time; how they hold out is {@link
 * MapOpsLoadContract}'s. What the device sees is read through the device end's {@link
 * virtio.api.transport.DriverMemory}.
 */
public abstract class MapOpsContract extends Contract {
    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

    private Driven driven;
    private DeviceMapping mapping;

    /** For subclasses. */
    protected MapOpsContract() {}

    @BeforeEach
    void open() throws Exception {
        driven = drive(new TestDevice(1, 0)).run(0);
        mapping = driven.mapping;
    }

    private static MemorySegment heap(int size, int first) {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++) {
            bytes[i] = (byte) (first + i);
        }
        return MemorySegment.ofArray(bytes);
    }

    private static void assertSame(MemorySegment expected, MemorySegment actual, String what) {
        assertEquals(expected.byteSize(), actual.byteSize(), what);
        assertEquals(-1, expected.mismatch(actual), what + ": first differing byte");
    }

    private long map(MemorySegment segment, Direction direction) {
        long handle = mapping.map(segment, 0, segment.byteSize(), direction);
        assertFalse(mapping.error(handle), "mapping of " + segment);
        assertNotEquals(0, handle);
        return handle;
    }

    @Test
    void errorValueIsTheOnlyError() {
        assertTrue(mapping.error(MapOps.MAPPING_ERROR));
        assertFalse(mapping.error(1));
        MemorySegment segment = heap(100, 0);
        long handle = map(segment, Direction.TO_DEVICE);
        mapping.unmap(handle, 100, Direction.TO_DEVICE);
    }

    @Test
    void deviceSeesWhatTheDriverWroteAndItsOwnWritesAreNotCopiedBack() {
        for (MemorySegment segment : foreign(5000)) {
            MemorySegment copy = heap(5000, 0).copyFrom(segment);
            long handle = map(segment, Direction.TO_DEVICE);
            assertSame(copy, driven.seen(handle, 5000), "at the device");
            if (mapping.needSync(handle)) {
                driven.seen(handle, 5000).fill((byte) 0x55);
                mapping.syncForCpu(handle, 5000, Direction.TO_DEVICE);
                assertSame(copy, segment, "after a sync of TO_DEVICE");
            }
            mapping.unmap(handle, 5000, Direction.TO_DEVICE);
            assertSame(copy, segment, "after unmap of TO_DEVICE");
        }
    }

    @Test
    void driverSeesWhatTheDeviceWrote() {
        for (MemorySegment segment : foreign(5000)) {
            for (Direction direction :
                    new Direction[] {Direction.FROM_DEVICE, Direction.BIDIRECTIONAL}) {
                long handle = map(segment, direction);
                MemorySegment written = heap(5000, direction.ordinal() * 31);
                driven.seen(handle, 5000).copyFrom(written);
                mapping.unmap(handle, 5000, direction);
                assertSame(written, segment, "after unmap of " + direction);
            }
        }
    }

    /** Segments that the transport has not allocated, of each kind, not at the start of a page. */
    private static List<MemorySegment> foreign(int size) {
        MemorySegment bytes = heap(size + 33, 3).asSlice(33);
        MemorySegment longs = MemorySegment.ofArray(new long[size / 8 + 8]).asSlice(8, size);
        MemorySegment nativeShared = Arena.ofAuto().allocate(size + 64, 64).asSlice(17, size);
        MemorySegment direct =
                MemorySegment.ofBuffer(java.nio.ByteBuffer.allocateDirect(size + 1)).asSlice(1);
        longs.copyFrom(bytes);
        nativeShared.copyFrom(bytes);
        direct.copyFrom(bytes);
        return List.of(bytes, longs, nativeShared, direct);
    }

    @Test
    void confinedMemoryIsMappedByItsOwner() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment segment = arena.allocate(700);
            segment.fill((byte) 9);
            long handle = map(segment, Direction.BIDIRECTIONAL);
            assertEquals(9, driven.seen(handle, 700).get(BYTE, 699));
            driven.seen(handle, 700).set(BYTE, 699, (byte) 10);
            mapping.unmap(handle, 700, Direction.BIDIRECTIONAL);
            assertEquals(10, segment.get(BYTE, 699));
        }
    }

    @Test
    void whatWasWrittenToAClosedSegmentIsLost() {
        Arena arena = Arena.ofShared();
        MemorySegment segment = arena.allocate(700);
        long handle = map(segment, Direction.FROM_DEVICE);
        arena.close();
        mapping.unmap(handle, 700, Direction.FROM_DEVICE);
    }

    @Test
    void readOnlyMemoryCanBeReadByTheDevice() {
        MemorySegment segment = heap(600, 1);
        long handle = map(segment.asReadOnly(), Direction.TO_DEVICE);
        assertSame(segment, driven.seen(handle, 600), "at the device");
        mapping.unmap(handle, 600, Direction.TO_DEVICE);
    }

    @Test
    void onlyThePartThatWasNamedIsMapped() {
        MemorySegment segment = heap(1000, 0);
        long handle = mapping.map(segment, 100, 50, Direction.BIDIRECTIONAL);
        assertFalse(mapping.error(handle));
        assertSame(segment.asSlice(100, 50), driven.seen(handle, 50), "at the device");
        driven.seen(handle, 50).fill((byte) -1);
        mapping.unmap(handle, 50, Direction.BIDIRECTIONAL);
        for (int i = 0; i < 1000; i++) {
            byte expected = i >= 100 && i < 150 ? -1 : (byte) i;
            assertEquals(expected, segment.get(BYTE, i), "byte " + i);
        }
    }

    @Test
    void partBeyondTheSegmentIsRefused() {
        MemorySegment segment = heap(100, 0);
        assertThrows(
                RuntimeException.class, () -> mapping.map(segment, 90, 11, Direction.TO_DEVICE));
        assertThrows(
                RuntimeException.class, () -> mapping.map(segment, -1, 11, Direction.TO_DEVICE));
    }

    @Test
    void oldContentsOfABufferFromTheDeviceNeverReachIt() {
        MemorySegment secret = heap(3000, 1);
        secret.fill((byte) 0x5a);
        // What an earlier mapping at the same place held is as secret.
        mapping.unmap(map(secret, Direction.TO_DEVICE), 3000, Direction.TO_DEVICE);
        long handle = map(secret, Direction.FROM_DEVICE);
        assertTrue(mapping.needSync(handle), "a heap array is bounced");
        long reach = Math.min(4096, driven.started(0).memory().reach(handle, false));
        assertEquals(
                -1,
                driven.seen(handle, reach).mismatch(MemorySegment.ofArray(new byte[(int) reach])),
                "first byte that is not zero");
        mapping.syncForDevice(handle, 3000, Direction.FROM_DEVICE);
        assertEquals(0, driven.seen(handle, 3000).get(BYTE, 0), "after a sync of FROM_DEVICE");
        mapping.unmap(handle, 3000, Direction.FROM_DEVICE);
        assertEquals(0, secret.get(BYTE, 2999), "the device wrote zeroes, as it seems");
    }

    @Test
    void slackBehindABufferToTheDeviceIsCleared() {
        MemorySegment secret = heap(4096, 1);
        secret.fill((byte) 0x5a);
        mapping.unmap(map(secret, Direction.TO_DEVICE), 4096, Direction.TO_DEVICE);
        long handle = map(secret.asSlice(0, 10), Direction.TO_DEVICE);
        MemorySegment slack = driven.seen(handle, 4096).asSlice(10);
        assertEquals(-1, slack.mismatch(MemorySegment.ofArray(new byte[4086])));
        mapping.unmap(handle, 10, Direction.TO_DEVICE);
    }

    @Test
    void coherentMemoryIsZeroedAlignedAndSharedAtOnce() {
        for (int round = 0; round < 3; round++) {
            CoherentMemory memory = mapping.alloc(10_000);
            assertNotNull(memory);
            assertEquals(10_000, memory.segment().byteSize());
            assertNotEquals(0, memory.mapHandle());
            assertEquals(0, memory.mapHandle() % 4096);
            assertEquals(0, memory.segment().address() % 4096);
            assertEquals(-1, memory.segment().mismatch(MemorySegment.ofArray(new byte[10_000])));
            MemorySegment device = driven.seen(memory.mapHandle(), 10_000);
            memory.segment().fill((byte) 0x77);
            assertEquals(0x77, device.get(BYTE, 9_999));
            device.set(BYTE, 5_000, (byte) 0x11);
            assertEquals(0x11, memory.segment().get(BYTE, 5_000));
            mapping.free(memory);
        }
    }

    @Test
    void coherentMemoryIsMappedWhereItIs() {
        CoherentMemory memory = mapping.alloc(8192);
        long handle = mapping.map(memory.segment(), 100, 1000, Direction.BIDIRECTIONAL);
        assertEquals(memory.mapHandle() + 100, handle);
        assertFalse(mapping.needSync(handle));
        driven.seen(handle, 1000).set(BYTE, 999, (byte) 42);
        assertEquals(42, memory.segment().get(BYTE, 1099));
        mapping.syncForCpu(handle + 3, 10, Direction.BIDIRECTIONAL);
        mapping.syncForDevice(handle + 3, 10, Direction.BIDIRECTIONAL);
        mapping.unmap(handle, 1000, Direction.BIDIRECTIONAL);
        assertEquals(42, memory.segment().get(BYTE, 1099));
        mapping.free(memory);
    }

    @Test
    void syncCopiesTheRangeThatWasNamedInItsDirection() {
        MemorySegment segment = heap(9000, 0);
        long handle = map(segment, Direction.BIDIRECTIONAL);
        assertTrue(mapping.needSync(handle), "a heap array is bounced");
        MemorySegment device = driven.seen(handle, 9000);
        device.fill((byte) 0x66);
        MemorySegment expected = heap(9000, 0);
        mapping.syncForCpu(handle + 4500, 20, Direction.BIDIRECTIONAL);
        expected.asSlice(4500, 20).fill((byte) 0x66);
        assertSame(expected, segment, "driver's copy after syncForCpu");
        segment.fill((byte) 0x33);
        mapping.syncForDevice(handle + 8990, 10, Direction.BIDIRECTIONAL);
        expected.fill((byte) 0x66);
        expected.asSlice(8990, 10).fill((byte) 0x33);
        assertSame(expected, device, "device's copy after syncForDevice");
        mapping.unmap(handle, 9000, Direction.BIDIRECTIONAL);
        assertSame(expected, segment, "driver's copy after unmap");
    }

    @Test
    void withoutCpuSyncNothingIsCopied() {
        MapOps ops = mapping.ops();
        MemorySegment segment = heap(500, 1);
        long handle =
                ops.mapPage(
                        mapping.token(),
                        segment,
                        0,
                        500,
                        Direction.BIDIRECTIONAL,
                        MapOps.SKIP_CPU_SYNC);
        assertFalse(mapping.error(handle));
        MemorySegment device = driven.seen(handle, 500);
        assertEquals(-1, device.mismatch(MemorySegment.ofArray(new byte[500])), "copied by map");
        mapping.syncForDevice(handle, 500, Direction.BIDIRECTIONAL);
        assertSame(heap(500, 1), device, "device's copy after syncForDevice");
        device.fill((byte) 0x22);
        ops.unmapPage(mapping.token(), handle, 500, Direction.BIDIRECTIONAL, MapOps.SKIP_CPU_SYNC);
        assertSame(heap(500, 1), segment, "copied by unmap");
    }

    @Test
    void sizesBeyondTheLimitAreRefusedByNumber() {
        long max = mapping.maxMappingSize();
        assertTrue(max >= 4096, "limit " + max);
        MemorySegment one = heap(1, 5);
        assertThrows(
                IllegalArgumentException.class, () -> mapping.map(one, 0, 0, Direction.TO_DEVICE));
        Assumptions.assumeTrue(max < 1 << 28, "no limit below 256 MiB: " + max);
        MemorySegment most = heap((int) max + 1, 7);
        long handle = mapping.map(most, 1, max, Direction.TO_DEVICE);
        assertFalse(mapping.error(handle), "mapping of the most, " + max);
        assertSame(most.asSlice(1), driven.seen(handle, max), "at the device");
        mapping.unmap(handle, max, Direction.TO_DEVICE);
        IllegalArgumentException e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> mapping.map(most, 0, max + 1, Direction.TO_DEVICE));
        assertTrue(e.getMessage().contains(String.valueOf(max + 1)), e.getMessage());
        assertTrue(e.getMessage().contains(String.valueOf(max)), e.getMessage());
    }

    @Test
    void coherentMemoryThatThereIsNotIsNull() {
        assertNull(mapping.alloc(1L << 46));
        List<CoherentMemory> all = new ArrayList<>();
        CoherentMemory next;
        while (all.size() < 4096 && (next = mapping.alloc(1 << 20)) != null) {
            all.add(next);
        }
        all.forEach(mapping::free);
        CoherentMemory again = mapping.alloc(1 << 20);
        assertNotNull(again, "after " + all.size() + " were given back");
        mapping.free(again);
    }

    @Test
    void mappingsLiveOnAfterTheTransportIsClosed() throws Exception {
        MemorySegment segment = heap(300, 0);
        long handle = map(segment, Direction.FROM_DEVICE);
        CoherentMemory memory = mapping.alloc(4096);
        driven.seen(handle, 300).fill((byte) 0x44);
        driven.transport.close();
        memory.segment().fill((byte) 1);
        mapping.unmap(handle, 300, Direction.FROM_DEVICE);
        assertEquals(0x44, segment.get(BYTE, 299));
        assertEquals(1, memory.segment().get(BYTE, 4095));
        mapping.free(memory);
    }
}
