package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

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

class CopyingMapOpsTest {
    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

    private final CopyingMapOps ops = new CopyingMapOps(1 << 20, 1 << 16);
    private final DeviceMapping mapping = new DeviceMapping(ops, ops.token());
    private final MemorySegment buffer = MemorySegment.ofArray(new byte[100]);

    @Test
    void aForgottenSyncShows() {
        long handle = mapping.map(buffer, 0, 100, Direction.BIDIRECTIONAL);
        ops.device(handle, 100).set(BYTE, 3, (byte) 7);
        assertEquals(0, buffer.get(BYTE, 3));
        mapping.syncForCpu(handle + 3, 1, Direction.BIDIRECTIONAL);
        assertEquals(7, buffer.get(BYTE, 3));
        buffer.set(BYTE, 4, (byte) 8);
        assertEquals(0, ops.device(handle, 100).get(BYTE, 4));
        mapping.syncForDevice(handle, 100, Direction.BIDIRECTIONAL);
        assertEquals(8, ops.device(handle + 4, 1).get(BYTE, 0));
        mapping.unmap(handle, 100, Direction.BIDIRECTIONAL);
        assertEquals(List.of(), ops.violations());
        assertEquals(0, ops.live());
    }

    @Test
    void aForgottenUnmapShows() {
        long handle = mapping.map(buffer, 10, 20, Direction.FROM_DEVICE);
        ops.device(handle, 20).fill((byte) 9);
        assertEquals(0, buffer.get(BYTE, 10));
        assertEquals(1, ops.live());
        mapping.unmap(handle, 20, Direction.FROM_DEVICE);
        assertEquals(9, buffer.get(BYTE, 29));
        assertEquals(0, buffer.get(BYTE, 30));
    }

    @Test
    void whatWasWrittenToAClosedSegmentIsLost() {
        Arena arena = Arena.ofShared();
        long handle = mapping.map(arena.allocate(20), 0, 20, Direction.FROM_DEVICE);
        arena.close();
        mapping.unmap(handle, 20, Direction.FROM_DEVICE);
        assertEquals(0, ops.live());
        assertEquals(List.of(), ops.violations());
    }

    @Test
    void coherentMemoryIsCopiedToo() {
        CoherentMemory memory = mapping.alloc(4096);
        long handle = mapping.map(memory.segment(), 0, 100, Direction.TO_DEVICE);
        assertNotEquals(memory.mapHandle(), handle);
        memory.segment().set(BYTE, 0, (byte) 1);
        assertEquals(1, ops.device(memory.mapHandle(), 1).get(BYTE, 0));
        assertEquals(0, ops.device(handle, 1).get(BYTE, 0));
        assertEquals(2, ops.live());
        mapping.unmap(handle, 100, Direction.TO_DEVICE);
        mapping.free(memory);
        assertEquals(0, ops.live());
    }

    @Test
    void lateAndDistantAccessOfTheDeviceIsRefused() {
        long handle = mapping.map(buffer, 0, 100, Direction.TO_DEVICE);
        MemorySegment view = ops.device(handle, 100);
        assertThrows(IndexOutOfBoundsException.class, () -> ops.device(handle, 101));
        assertThrows(IndexOutOfBoundsException.class, () -> ops.device(handle - 1, 1));
        assertThrows(IndexOutOfBoundsException.class, () -> ops.device(0, 1));
        mapping.unmap(handle, 100, Direction.TO_DEVICE);
        assertThrows(IndexOutOfBoundsException.class, () -> ops.device(handle, 1));
        assertEquals(CopyingMapOps.STALE, view.get(BYTE, 50));
    }

    @Test
    void brokenPromisesAreSentences() {
        long handle = mapping.map(buffer, 0, 100, Direction.TO_DEVICE);
        mapping.syncForCpu(handle, 101, Direction.TO_DEVICE);
        mapping.syncForDevice(handle, 100, Direction.FROM_DEVICE);
        mapping.unmap(handle, 99, Direction.TO_DEVICE);
        mapping.unmap(handle, 100, Direction.TO_DEVICE);
        ops.alloc(new virtio.api.map.MapToken() {}, 1);
        List<String> all = ops.violations();
        assertEquals(5, all.size(), all.toString());
        assertTrue(all.get(0).contains("101 bytes"), all.get(0));
        assertTrue(all.get(1).contains("FROM_DEVICE"), all.get(1));
        assertTrue(all.get(2).contains("99 bytes"), all.get(2));
        assertTrue(all.get(3).contains("not mapped"), all.get(3));
        assertTrue(all.get(4).contains("token"), all.get(4));
    }

    @Test
    void exhaustionIsTheErrorValueAndLimitsAreExceptions() {
        List<Long> handles = new ArrayList<>();
        long handle;
        while (!mapping.error(handle = mapping.map(buffer, 0, 100, Direction.TO_DEVICE))) {
            handles.add(handle);
        }
        assertEquals(MapOps.MAPPING_ERROR, handle);
        assertEquals(256, handles.size());
        handles.forEach(taken -> mapping.unmap(taken, 100, Direction.TO_DEVICE));
        MemorySegment large = MemorySegment.ofArray(new byte[(1 << 16) + 1]);
        assertThrows(
                IllegalArgumentException.class,
                () -> mapping.map(large, 0, large.byteSize(), Direction.TO_DEVICE));
    }
}
