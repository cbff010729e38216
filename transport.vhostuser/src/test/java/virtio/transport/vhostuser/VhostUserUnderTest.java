package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.map.MapOps;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;
import virtio.linux.Memory;
import virtio.tck.TransportUnderTest;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Both ends over a socket of their own, as the contracts meet them. */
final class VhostUserUnderTest implements TransportUnderTest {
    private final List<Integer> before = Peers.live();
    private final VhostUserProvider provider =
            new VhostUserProvider(16 << 20, Memory.PAGE_BYTES, 1000, List.of());
    private final VhostUserExporter exporter = new VhostUserExporter();
    private final VhostUserMapOps mapOps = new VhostUserMapOps();
    private final Path folder;

    VhostUserUnderTest() {
        try {
            folder = Files.createTempDirectory("vhost-user");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Override
    public TransportProvider provider() {
        return provider;
    }

    @Override
    public Exporter exporter() {
        return exporter;
    }

    @Override
    public MapOps mapOps() {
        return mapOps;
    }

    @Override
    public String address() {
        // The contract's features are no disk's, so that the type cannot be told from them.
        return folder.resolve("x.sock") + ",type=blk";
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
    public void close() {
        try {
            Files.delete(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }
}
