package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** Fails a test that leaves a descriptor or a mapping behind, by our own count and the kernel's. */
class Leaks implements BeforeEachCallback, AfterEachCallback {
    private long mapsBefore;

    @Override
    public void beforeEach(ExtensionContext context) throws Exception {
        assertEquals(0, FileDescriptor.live(), "open before the test");
        mapsBefore = memfdMappings();
    }

    @Override
    public void afterEach(ExtensionContext context) throws Exception {
        assertEquals(0, FileDescriptor.live(), "descriptors left open");
        assertEquals(0, Mapping.live(), "mappings left in place");
        assertEquals(mapsBefore, memfdMappings(), "mappings left in /proc/self/maps");
    }

    private static long memfdMappings() throws Exception {
        try (var lines = java.nio.file.Files.lines(java.nio.file.Path.of("/proc/self/maps"))) {
            return lines.filter(line -> line.contains("/memfd:")).count();
        }
    }
}
