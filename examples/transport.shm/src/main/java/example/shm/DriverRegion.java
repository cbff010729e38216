package example.shm;

import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The driver's region of the file, as the device end has it mapped.
 *
 * @param offset in the file, where map handles begin
 */
record DriverRegion(long offset, MemorySegment segment, Arena arena)
        implements DriverMemory, AutoCloseable {
    static DriverRegion map(ShmFile file, int number) throws VirtioException {
        Arena arena = Arena.ofShared();
        return new DriverRegion(file.regionOffset(number), file.mapRegion(number, arena), arena);
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        long at = mapHandle - offset;
        long bytes = segment.byteSize();
        return at >= 0 && length >= 0 && at < bytes && length <= bytes - at
                ? segment.address() + at
                : FAULT;
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        long at = mapHandle - offset;
        return at >= 0 && at < segment.byteSize() ? segment.byteSize() - at : 0;
    }

    /** Unmaps it; no queue may be in use. */
    @Override
    public void close() {
        arena.close();
    }
}
