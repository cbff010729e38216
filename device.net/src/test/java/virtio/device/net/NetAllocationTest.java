package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Frames cost no memory once everything is compiled. Over vhost-user only the consumer's thread is
 * counted: what wakes a back-end's thread up may make an object for each burst.
 */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class NetAllocationTest {
    private static final int BURST = 32;
    private static final int BURSTS = 200;

    @TempDir Path folder;
    private final PacketBuffer[] frames = new PacketBuffer[BURST];
    private Rig rig;

    @BeforeEach
    void open() {
        rig = new Rig(folder);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    @ParameterizedTest
    @CsvSource({
        "mmio, ''",
        "mmio, ',without=MRG_RXBUF'",
        "vhost-user, ''",
    })
    void framesAllocateNothing(String transport, String without) throws Exception {
        NetDevice card = rig.card(transport, "loopback:" + without, "net0");
        MemorySegment frame =
                MemorySegment.ofArray(Rig.frame(64, card.macAddress(), card.macAddress(), 1));
        boolean all = transport.equals("mmio");
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (NetQueue queue = card.openQueue(0)) {
            long least = Long.MAX_VALUE;
            // Until it is compiled, however long a busy machine takes for that.
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (least >= 1000 && System.nanoTime() - end < 0) {
                long before = allocated(threads, all);
                load(queue, frame);
                least = Math.min(least, allocated(threads, all) - before);
            }
            assertTrue(least < 1000, least + " bytes for 6400 frames");
        }
        assertEquals(0, card.statistics().queues().getFirst().droppedFrames());
    }

    private static long allocated(com.sun.management.ThreadMXBean threads, boolean all) {
        return all
                ? threads.getTotalThreadAllocatedBytes()
                : threads.getCurrentThreadAllocatedBytes();
    }

    private void load(NetQueue queue, MemorySegment frame) {
        for (int i = 0; i < BURSTS; i++) {
            int count = queue.allocate(frames);
            for (int k = 0; k < count; k++) {
                frames[k].frame(PacketBuffer.HEADROOM, 64);
                MemorySegment.copy(frame, 0, frames[k].segment(), PacketBuffer.HEADROOM, 64);
            }
            assertEquals(BURST, count);
            assertEquals(BURST, queue.send(frames, count));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            for (int got = 0; got < BURST; ) {
                int some = queue.receive(frames);
                queue.free(frames, some);
                got += some;
                assertTrue(some > 0 || System.nanoTime() < end, "frames are lost");
            }
        }
    }
}
