package virtio.ring.queue;

import virtio.api.transport.DriverMemory;

import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** Driver memory of some regions, checked. */
final class Regions implements DriverMemory {
    private record Region(long handle, MemorySegment memory, boolean writable) {}

    private final List<Region> regions = new ArrayList<>();

    Regions share(long handle, MemorySegment memory) {
        regions.add(new Region(handle, memory, true));
        return this;
    }

    Regions shareReadOnly(long handle, MemorySegment memory) {
        regions.add(new Region(handle, memory, false));
        return this;
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        return length > 0 && reach(mapHandle, write) >= length ? address(mapHandle) : FAULT;
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        for (int i = 0; i < regions.size(); i++) {
            Region r = regions.get(i);
            long at = mapHandle - r.handle;
            if (at >= 0 && at < r.memory.byteSize() && (r.writable || !write)) {
                return r.memory.byteSize() - at;
            }
        }
        return 0;
    }

    private long address(long mapHandle) {
        for (int i = 0; i < regions.size(); i++) {
            Region r = regions.get(i);
            long at = mapHandle - r.handle;
            if (at >= 0 && at < r.memory.byteSize()) {
                return r.memory.address() + at;
            }
        }
        return FAULT;
    }
}
