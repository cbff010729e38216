package virtio.transport.mmio;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.map.MapOps;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;
import virtio.linux.Memory;
import virtio.tck.TransportUnderTest;

import java.lang.foreign.MemorySegment;
import java.nio.file.Path;

/** Emulated windows, as the contracts meet them. */
final class MmioUnderTest implements TransportUnderTest {
    private final int mappingsBefore = Mapping.live();
    private final int descriptorsBefore = FileDescriptor.live();
    private final MmioProvider both =
            new MmioProvider(8, 4, new RealWindows(Path.of("/nowhere"), 1));
    private final MmioMapOps mapOps = new MmioMapOps();

    @Override
    public TransportProvider provider() {
        return both;
    }

    @Override
    public Exporter exporter() {
        return both;
    }

    @Override
    public MapOps mapOps() {
        return mapOps;
    }

    @Override
    public String address() {
        return "emu0";
    }

    @Override
    public MemorySegment at(long address, long sizeBytes) {
        return Memory.of(address, sizeBytes);
    }

    @Override
    public void close() {
        both.close();
        assertEquals(mappingsBefore, Mapping.live(), "mappings left");
        assertEquals(descriptorsBefore, FileDescriptor.live(), "descriptors left");
    }
}
