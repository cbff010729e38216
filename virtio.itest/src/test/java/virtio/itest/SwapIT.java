package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.SwapResult;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** The transport below a disk is exchanged while consumers use it. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class SwapIT extends ContainerTest {
    private static final int SWAPS = 40;
    private static final int BLOCKS = 1024;

    private VirtioBus bus;
    private Path image;

    @BeforeEach
    void setUp() throws Exception {
        container.configureBus(20_000, 5_000);
        bus = container.bus();
        image = folder.resolve("disk.img");
        Files.write(image, new byte[16 << 20]);
    }

    @Test
    void consumersDoNotNoticeSwapsUnderLoad() throws Exception {
        String near = "mmio:near";
        String far = "vhost-user:" + folder.resolve("far.sock");
        bus.export("file:" + image, near);
        bus.export("file:" + image, far);
        bus.attach(near, "blk0");
        BlockDevice disk = container.disk("blk0");
        Traffic shared = new Traffic(() -> disk, 0, BLOCKS, true).start();
        Traffic heap = new Traffic(() -> disk, BLOCKS, BLOCKS, false).start();
        long[] pauses = new long[SWAPS];
        for (int i = 0; i < SWAPS; i++) {
            shared.awaitMore(300);
            heap.awaitMore(300);
            String to = i % 2 == 0 ? far : near;
            SwapResult swap = bus.swap("blk0", to);
            assertEquals(to, swap.to());
            assertSame(disk, container.diskNow("blk0"));
            pauses[i] = swap.pauseNanos();
        }
        shared.awaitMore(300);
        heap.awaitMore(300);
        shared.stop();
        heap.stop();
        MemorySegment stored = MemorySegment.ofArray(Files.readAllBytes(image));
        shared.verifyImage(stored);
        heap.verifyImage(stored);
        DeviceSnapshot device = container.snapshot("blk0");
        assertEquals(SWAPS, device.swaps());
        assertEquals(near, device.address());
        Arrays.sort(pauses);
        System.out.printf(
                "%d swaps under load: paused for %.2f ms (p50), %.2f ms (p99), %d requests%n",
                SWAPS,
                pauses[SWAPS / 2] / 1e6,
                pauses[SWAPS * 99 / 100] / 1e6,
                shared.completed() + heap.completed());
        assertTrue(pauses[0] > 0, "a pause was measured");
    }

    @Test
    void anotherDiskIsRefusedAndTheOldOneServesOn() throws Exception {
        bus.export("file:" + image + ",serial=one", "mmio:one");
        bus.attach("mmio:one", "blk0");
        BlockDevice disk = container.disk("blk0");
        Traffic traffic = new Traffic(() -> disk, 0, BLOCKS, true).start();

        Path larger = folder.resolve("larger.img");
        Files.write(larger, new byte[17 << 20]);
        refused("capacity", "file:" + larger + ",serial=one");
        refused("serial", "file:" + image + ",serial=two");
        refused("read-only", "file:" + image + ",serial=one,readonly");
        refused("block", "file:" + image + ",serial=one,blocksize=4096");
        for (String nowhere : new String[] {"mmio:none", "none:x", "vhost-user:/none/x.sock"}) {
            VirtioException reason =
                    assertThrows(VirtioException.class, () -> bus.swap("blk0", nowhere));
            assertTrue(reason.getMessage().contains("none"), reason.getMessage());
        }
        traffic.awaitMore(300);
        traffic.stop();
        DeviceSnapshot device = container.snapshot("blk0");
        assertEquals("mmio:one", device.address());
        assertEquals(DeviceSnapshot.State.ACTIVE, device.state());
    }

    private void refused(String why, String backend) throws Exception {
        for (String address :
                new String[] {"mmio:two", "vhost-user:" + folder.resolve("two.sock")}) {
            bus.export(backend, address);
            VirtioException reason =
                    assertThrows(VirtioException.class, () -> bus.swap("blk0", address), backend);
            assertTrue(reason.getMessage().contains(why), reason.getMessage());
            bus.unexport(address);
        }
    }
}
