package example.shm;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.map.MapOps;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;
import virtio.tck.TransportUnderTest;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/** A file in a folder of its own, as the contracts meet it. */
final class ShmUnderTest implements TransportUnderTest {
    private final ShmProvider both = new ShmProvider(12, 4, 1000);
    private final ShmMapOps mapOps = new ShmMapOps();
    private final Path folder;

    ShmUnderTest() throws IOException {
        folder = Files.createTempDirectory("shm");
    }

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
        return folder.resolve("device").toString();
    }

    @Override
    @SuppressWarnings("restricted")
    public MemorySegment at(long address, long sizeBytes) {
        return MemorySegment.ofAddress(address).reinterpret(sizeBytes);
    }

    /** Everything was given back, so that nothing of the file is mapped, and it is gone. */
    @Override
    public void close() {
        both.close();
        Mapped.awaitNone(folder);
        try (Stream<Path> left = Files.list(folder)) {
            assertEquals(0, left.count(), "files left");
            Files.delete(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
