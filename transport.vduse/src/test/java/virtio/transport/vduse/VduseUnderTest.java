package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.VirtioException;
import virtio.api.map.MapOps;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;
import virtio.linux.Memory;
import virtio.tck.TransportUnderTest;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;

/** Both ends with a simulated kernel between them, as the contracts meet them. */
final class VduseUnderTest implements TransportUnderTest {
    static final String ADDRESS = "disk0";

    private final List<Integer> before = live();
    final SimulatedKernel kernel = new SimulatedKernel();
    final Path folder;
    private final VhostVdpaProvider provider;
    final VduseExporter exporter;
    private final VhostVdpaMapOps mapOps = new VhostVdpaMapOps();

    VduseUnderTest() {
        try {
            folder = Files.createTempDirectory("vduse");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        provider =
                new VhostVdpaProvider(
                        16 << 20,
                        Memory.PAGE_BYTES,
                        new VdpaBus(folder.resolve("root")),
                        kernel::openVhostVdpa);
        exporter = new VduseExporter(kernel, folder.resolve("state"));
    }

    /** Descriptors and mappings that are open or in place. */
    static List<Integer> live() {
        return List.of(FileDescriptor.live(), Mapping.live());
    }

    @Override
    public TransportProvider provider() {
        return provider;
    }

    /** The two ends of a vDPA device have names of their own; the contracts know one. */
    @Override
    public Exporter exporter() {
        return new Exporter() {
            @Override
            public String name() {
                return VhostVdpaProvider.NAME;
            }

            @Override
            public Export export(String address, ExportedDevice device) throws VirtioException {
                return exporter.export(address, device);
            }
        };
    }

    @Override
    public MapOps mapOps() {
        return mapOps;
    }

    @Override
    public String address() {
        return ADDRESS;
    }

    @Override
    public MemorySegment at(long address, long sizeBytes) {
        return Memory.of(address, sizeBytes);
    }

    @Override
    public int featureBits() {
        return Long.SIZE;
    }

    @Override
    public Set<Unsaid> unsaid() {
        return Set.of(Unsaid.values());
    }

    @Override
    public void close() {
        kernel.close();
        try {
            Files.deleteIfExists(folder.resolve("state/vduse-" + ADDRESS + ".inflight"));
            Files.deleteIfExists(folder.resolve("state"));
            Files.delete(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        assertEquals(before, live(), "descriptors and mappings");
    }
}
