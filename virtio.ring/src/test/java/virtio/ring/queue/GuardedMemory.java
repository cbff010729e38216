package virtio.ring.queue;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;
import virtio.api.transport.DriverMemory;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;

/**
 * Memory that both ends share, in banks: what is shared ends where an access faults, and what lies
 * before it must stay as it is.
 *
 * <pre>
 * | canary ... | shared | cut off: every access is an InternalError |
 * 0                     BANK_BYTES                  BANK_BYTES + GUARD_BYTES
 * </pre>
 *
 * Buffers are always copied to a bank of their own, at handles that are no addresses.
 */
final class GuardedMemory implements MapOps, DriverMemory, AutoCloseable {
    static final int BANKS = 10;
    static final long BANK_BYTES = 65536;

    /** Further than any 16-bit index reaches. */
    private static final long GUARD_BYTES = 4 << 20;

    private static final long HANDLE = 0x7_0000_0000L;
    private static final long HANDLE_STEP = 0x1000_0000L;
    private static final byte CANARY = (byte) 0xC5;

    private final RandomAccessFile[] files = new RandomAccessFile[BANKS + 2];
    private final Mapping[] mappings = new Mapping[BANKS + 2];

    /** What is shared of each bank, from where to its end; null when it is free. */
    private final CoherentMemory[] shared = new CoherentMemory[BANKS];

    private final RegionPool buffers;
    private MemorySegment inflight;
    private final MemorySegment untouched =
            MemorySegment.ofArray(new byte[(int) BANK_BYTES]).fill(CANARY);

    /** Runs in the middle of what either end does: whenever it maps, unmaps or translates. */
    Runnable interlude = () -> {};

    GuardedMemory(Path folder) throws IOException {
        for (int i = 0; i < files.length; i++) {
            Path path = folder.resolve("bank" + i);
            files[i] = new RandomAccessFile(path.toFile(), "rw");
            files[i].setLength(BANK_BYTES + GUARD_BYTES);
            try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
                mappings[i] = Mapping.map(file, 0, BANK_BYTES + GUARD_BYTES, true);
            }
            files[i].setLength(BANK_BYTES);
            bank(i).fill(CANARY);
        }
        // A driver may let its device see all of this at any time.
        LiveMemory.share(bank(BANKS));
        inflight = LiveMemory.share(bank(BANKS + 1).asSlice(BANK_BYTES));
        buffers = new RegionPool(bank(BANKS), HANDLE + BANKS * HANDLE_STEP, BANK_BYTES);
    }

    private MemorySegment bank(int i) {
        return mappings[i].segment().asSlice(0, BANK_BYTES);
    }

    /** The end of a bank that no handle reaches. */
    MemorySegment inflight(long bytes) {
        MemorySegment bank = bank(BANKS + 1);
        bank.fill(CANARY);
        LiveMemory.unshare(inflight);
        inflight = LiveMemory.share(bank.asSlice(BANK_BYTES - bytes & -16, bytes));
        return inflight.fill((byte) 0);
    }

    /** What either end has shared at the moment. */
    CoherentMemory[] shared() {
        return shared;
    }

    /** A handle into the buffers, as far from their end. */
    long beforeTheEnd(long bytes) {
        return buffers.handleBase() + BANK_BYTES - bytes;
    }

    /** Throws when somebody wrote where nothing is shared. */
    void check() {
        for (int i = 0; i < BANKS; i++) {
            MemorySegment bank = bank(i);
            long end =
                    shared[i] == null ? BANK_BYTES : shared[i].segment().address() - bank.address();
            long at = bank.asSlice(0, end).mismatch(untouched.asSlice(0, end));
            if (at >= 0) {
                throw new AssertionError(
                        "bank %d was written at %d, shared is what follows %d"
                                .formatted(i, at, end));
            }
        }
    }

    int live() {
        int live = buffers.live();
        for (CoherentMemory memory : shared) {
            live += memory == null ? 0 : 1;
        }
        return live;
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        for (int i = 0; i < BANKS; i++) {
            if (shared[i] == null && size <= BANK_BYTES) {
                long offset = BANK_BYTES - size & -16;
                MemorySegment segment = bank(i).asSlice(offset, size).fill((byte) 0);
                shared[i] = new CoherentMemory(segment, HANDLE + i * HANDLE_STEP + offset);
                return shared[i];
            }
        }
        return null;
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        int i = (int) ((memory.mapHandle() - HANDLE) / HANDLE_STEP);
        if (shared[i] != memory) {
            throw new AssertionError("free of what is not allocated");
        }
        shared[i] = null;
        memory.segment().fill(CANARY);
    }

    @Override
    public long mapPage(
            MapToken token, MemorySegment page, long offset, long size, Direction d, long attrs) {
        interlude.run();
        return buffers.map(page, offset, size, d, attrs);
    }

    @Override
    public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {
        interlude.run();
        buffers.unmap(handle, size, d, attrs);
    }

    @Override
    public void syncSingleForCpu(MapToken token, long handle, long size, Direction d) {
        buffers.syncForCpu(handle, size, d);
    }

    @Override
    public void syncSingleForDevice(MapToken token, long handle, long size, Direction d) {
        buffers.syncForDevice(handle, size, d);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return buffers.needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return buffers.maxMappingSize();
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        interlude.run();
        return length > 0 && reach(mapHandle, write) >= length ? address(mapHandle) : FAULT;
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        if (buffers.contains(mapHandle)) {
            return buffers.handleBase() + BANK_BYTES - mapHandle;
        }
        for (CoherentMemory memory : shared) {
            if (memory != null) {
                long at = mapHandle - memory.mapHandle();
                if (at >= 0 && at < memory.segment().byteSize()) {
                    return memory.segment().byteSize() - at;
                }
            }
        }
        return 0;
    }

    /** Where a handle that {@link #reach} knows lies. */
    long address(long mapHandle) {
        int i = (int) ((mapHandle - HANDLE) / HANDLE_STEP);
        return mappings[i].segment().address() + (mapHandle - HANDLE) % HANDLE_STEP;
    }

    @Override
    public void close() throws IOException {
        LiveMemory.unshare(bank(BANKS));
        LiveMemory.unshare(inflight);
        for (int i = 0; i < files.length; i++) {
            mappings[i].close();
            files[i].close();
        }
    }
}
