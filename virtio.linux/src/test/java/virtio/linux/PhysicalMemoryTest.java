package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.abort;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;

class PhysicalMemoryTest {
    private static final long HUGE = PhysicalMemory.PAGE_BYTES;

    @TempDir Path root;

    @Test
    void extentsCoverTheMemoryAndNoTwoTouch() {
        int mappings = Mapping.live();
        int descriptors = FileDescriptor.live();
        try (PhysicalMemory memory = PhysicalMemory.create("test", 4 * HUGE)) {
            long bytes = 0;
            for (PhysicalMemory.Extent extent : memory.extents()) {
                assertEquals(0, extent.physicalAddress() % HUGE, extent::toString);
                assertTrue(extent.physicalAddress() > 0, extent::toString);
                assertEquals(0, extent.segment().get(ValueLayout.JAVA_LONG, 0));
                bytes += extent.segment().byteSize();
                for (PhysicalMemory.Extent other : memory.extents()) {
                    long distance = other.physicalAddress() - extent.physicalAddress();
                    assertTrue(
                            other == extent
                                    || distance > extent.segment().byteSize()
                                    || distance < -other.segment().byteSize(),
                            () -> extent + " and " + other);
                }
            }
            assertEquals(4 * HUGE, bytes);
        } catch (LinuxException e) {
            switch (e.errno()) {
                case Errno.ENOMEM -> abort("no huge page is free: " + e.getMessage());
                case Errno.EPERM -> abort("physical addresses are hidden: " + e.getMessage());
                default -> throw new AssertionError(e);
            }
        } finally {
            assertEquals(mappings, Mapping.live());
            assertEquals(descriptors, FileDescriptor.live());
        }
    }

    @Test
    void whatIsReservedIsCountedWithWhatIsMissing() throws Exception {
        Path folder =
                Files.createDirectories(root.resolve("sys/kernel/mm/hugepages/hugepages-2048kB"));
        String file = folder + "/nr_hugepages";
        assertEquals(
                "huge pages: 8 needed, 0 free; reserve more with: echo 8 > " + file,
                PhysicalMemory.lacking(root, 8));
        Files.writeString(folder.resolve("nr_hugepages"), "20\n");
        Files.writeString(folder.resolve("free_hugepages"), "5\n");
        Files.writeString(folder.resolve("resv_hugepages"), "2\n");
        assertEquals(3, PhysicalMemory.freePages(root));
        assertEquals(
                "huge pages: 8 needed, 3 free; reserve more with: echo 25 > " + file,
                PhysicalMemory.lacking(root, 8));
    }

    @Test
    void morePagesThanThereAreIsNoMemory() {
        int mappings = Mapping.live();
        LinuxException e =
                assertThrows(LinuxException.class, () -> PhysicalMemory.create("test", HUGE << 24));
        assertTrue(e.errno() == Errno.ENOMEM || e.errno() == Errno.ENODEV, e::getMessage);
        assertEquals(mappings, Mapping.live());
    }
}
