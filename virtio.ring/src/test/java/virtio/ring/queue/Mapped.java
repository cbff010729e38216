package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.map.DeviceMapping;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionMapOps;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.api.transport.DriverMemory;
import virtio.tck.CopyingMapOps;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.function.IntSupplier;

/**
 * A mapping under test, with the device's view of it.
 *
 * @param live allocations and mappings that were not given back
 * @param shares whether the device sees buffers of {@link #buffers} where they are
 */
record Mapped(
        DeviceMapping mapping,
        DriverMemory memory,
        IntSupplier live,
        AutoCloseable resource,
        boolean shares)
        implements AutoCloseable {
    /** The four ways of {@link #of}. */
    static final List<String> KINDS = List.of("identity", "region", "bounce", "copying");

    Mapped {
        mapping = LiveMemory.noted(mapping, memory);
    }

    Mapped(DeviceMapping mapping, DriverMemory memory, IntSupplier live, AutoCloseable resource) {
        this(mapping, memory, live, resource, false);
    }

    static Mapped of(String kind) {
        return switch (kind) {
            case "identity" -> identity();
            case "region" -> region();
            case "bounce" -> bounce();
            default -> copying();
        };
    }

    /** Memory for a test's buffers: shared where the mapping can, from the arena where not. */
    MemorySegment buffers(Arena arena, long bytes) {
        return shares ? mapping.alloc(bytes).segment() : arena.allocate(bytes, 64);
    }

    /** Every buffer is where it is, and the device sees all memory. */
    static Mapped identity() {
        IdentityMapOps.Token token = IdentityMapOps.token(16 << 20, 1 << 20);
        DriverMemory all =
                new DriverMemory() {
                    @Override
                    public long translate(long mapHandle, long length, boolean write) {
                        return mapHandle;
                    }

                    @Override
                    public long reach(long mapHandle, boolean write) {
                        return mapHandle == 0 ? 0 : Long.MAX_VALUE;
                    }
                };
        return new Mapped(
                new DeviceMapping(new IdentityMapOps(), token), all, token::live, token, true);
    }

    /** Buffers that lie in the region are seen where they are, at handles that are no addresses. */
    static Mapped region() {
        return pooled(true);
    }

    /** Every buffer is bounced, at handles that are no addresses. */
    static Mapped bounce() {
        return pooled(false);
    }

    private static Mapped pooled(boolean shares) {
        Arena arena = Arena.ofShared();
        MemorySegment region = arena.allocate(32 << 20, 4096);
        RegionPool pool = new RegionPool(region, 0x7_0000_0000L, 16 << 20);
        MapToken token =
                new RegionMemory(pool) {
                    @Override
                    protected void unmap(RegionPool region, int left) {}
                };
        Regions memory = new Regions().share(0x7_0000_0000L, region);
        return new Mapped(
                new DeviceMapping(new RegionMapOps() {}, token),
                memory,
                pool::live,
                arena::close,
                shares);
    }

    /** The kit's: every buffer lies somewhere else each time, and broken promises are kept. */
    static Mapped copying() {
        CopyingMapOps ops = new CopyingMapOps(32 << 20, 1 << 18);
        DriverMemory memory =
                new DriverMemory() {
                    @Override
                    public long translate(long mapHandle, long length, boolean write) {
                        try {
                            return ops.device(mapHandle, length).address();
                        } catch (IndexOutOfBoundsException e) {
                            return FAULT;
                        }
                    }

                    @Override
                    public long reach(long mapHandle, boolean write) {
                        return translate(mapHandle, 1, write) == FAULT ? 0 : 1;
                    }
                };
        return new Mapped(
                new DeviceMapping(ops, ops.token()),
                memory,
                ops::live,
                () -> assertEquals(List.of(), ops.violations()));
    }

    @Override
    public void close() {
        try {
            resource.close();
        } catch (Exception e) {
            throw new AssertionError(e);
        }
    }
}
