package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.transport.DriverMemory;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;
import virtio.linux.Memory;
import virtio.linux.SharedMemory;

import java.lang.foreign.ValueLayout;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;

/** The driver's memory, from one region in a file. */
@Timeout(60)
class VduseMemoryTest {
    private static final long START = 0x10_0000;

    private interface Region {
        VduseDevice.Region get() throws Exception;
    }

    private static VduseMemory memory(Region region) {
        Object device =
                Proxy.newProxyInstance(
                        VduseMemoryTest.class.getClassLoader(),
                        new Class<?>[] {VduseDevice.class},
                        (proxy, method, arguments) -> {
                            assertEquals("region", method.getName());
                            return region.get();
                        });
        return new VduseMemory("disk0", (VduseDevice) device);
    }

    private static VduseDevice.Region region(SharedMemory file, long offset, long bytes)
            throws LinuxException {
        int all = VduseDevice.ACCESS_RO | VduseDevice.ACCESS_WO;
        return new VduseDevice.Region(file.file().dup(), offset, START, START + bytes - 1, all);
    }

    /** The kernel asks for the invalidation of what a queue has asked for, and not yet mapped. */
    @Test
    void anUpdateMeetsWhatAQueueIsAboutToMap() throws Exception {
        CountDownLatch asked = new CountDownLatch(1);
        CountDownLatch answer = new CountDownLatch(1);
        try (SharedMemory file = SharedMemory.create("test", 8192);
                VduseMemory memory =
                        memory(
                                () -> {
                                    asked.countDown();
                                    answer.await();
                                    return region(file, 0, 8192);
                                })) {
            CompletableFuture<Long> queue =
                    CompletableFuture.supplyAsync(() -> memory.translate(START, 1, true));
            asked.await();
            AtomicBoolean meets = new AtomicBoolean();
            Thread session = Thread.ofPlatform().start(() -> meets.set(memory.meets(0, -1)));
            while (session.isAlive() && session.getState() != Thread.State.BLOCKED) {
                Thread.onSpinWait();
            }
            answer.countDown();
            assertNotEquals(DriverMemory.FAULT, queue.get());
            session.join();
            assertTrue(meets.get());
        }
    }

    /** As QEMU's guests have theirs: it begins in the middle of a page and ends in another one. */
    @Test
    void aPartOfAFileOnHugePagesIsMappedAndUnmapped() throws Exception {
        int pageBytes = 2 << 20;
        Path free = Path.of("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        assumeTrue(
                Files.isReadable(free) && Integer.parseInt(Files.readString(free).strip()) >= 2,
                "no huge page is free, or one alone (/proc/sys/vm/nr_hugepages)");
        long offset = START;
        int mappings = Mapping.live();
        try (SharedMemory file = SharedMemory.create("test", 2L * pageBytes, pageBytes)) {
            file.segment().set(ValueLayout.JAVA_LONG, offset + 8, 4711);
            try (VduseMemory memory = memory(() -> region(file, offset, pageBytes))) {
                long address = memory.translate(START + 8, 8, true);
                assertNotEquals(DriverMemory.FAULT, address);
                assertEquals(4711, Memory.ALL.get(ValueLayout.JAVA_LONG, address));
                assertEquals(DriverMemory.FAULT, memory.translate(START + pageBytes, 1, true));
            }
        }
        assertEquals(mappings, Mapping.live());
    }
}
