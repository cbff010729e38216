package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.backend.BackendProvider;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;
import virtio.api.status.DeviceSnapshot;
import virtio.backend.blk.FileProvider;
import virtio.backend.blk.RamProvider;
import virtio.ring.Core;
import virtio.transport.mmio.MmioMapOps;
import virtio.transport.mmio.MmioProvider;

import java.io.RandomAccessFile;
import java.lang.annotation.Annotation;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;

/** The driver on the real core, over emulated registers, to the real backends. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BlkOverMmioTest {
    private static final int BYTES = 8 << 20;

    @TempDir Path dir;

    private final Core core = new Core(20_000, 2_000);
    private final MmioProvider mmio = new MmioProvider(config());
    private final MmioMapOps ops = new MmioMapOps();
    private final LongAdder progress = new LongAdder();
    private volatile boolean stop;
    private volatile BlockDevice disk;
    private final BlkDriver driver = driver();

    private BlkDriver driver() {
        return new BlkDriver(
                d -> {
                    disk = d;
                    return () -> disk = null;
                });
    }

    private static MmioProvider.Configuration config() {
        return new MmioProvider.Configuration() {
            @Override
            public Class<? extends Annotation> annotationType() {
                return MmioProvider.Configuration.class;
            }

            @Override
            public int coherentMebibytes() {
                return 16;
            }

            @Override
            public int hugePages() {
                return 1;
            }

            @Override
            public int bounceMebibytes() {
                return 2;
            }
        };
    }

    @BeforeEach
    void bind() {
        for (BackendProvider backend : List.of(new RamProvider(), new FileProvider())) {
            core.bindBackend(backend);
        }
        core.bindTransport(mmio, ops);
        core.bindDriver(driver);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        core.close();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        List<String> left = virtioThreads();
        while (!left.isEmpty() && System.nanoTime() < end) {
            Thread.sleep(1);
            left = virtioThreads();
        }
        assertEquals(List.of(), left);
    }

    private static List<String> virtioThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.startsWith("virtio-"))
                .toList();
    }

    private void attach(String backend) throws VirtioException {
        core.bus().export(backend, "mmio:a");
        core.bus().attach("mmio:a", "blk0");
        assertNotNull(disk);
    }

    private Path image() throws Exception {
        Path image = dir.resolve("disk.img");
        Files.write(image, new byte[BYTES]);
        return image;
    }

    private void await(DeviceSnapshot.State state) throws TimeoutException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (core.bus().devices().getFirst().state() != state) {
            if (System.nanoTime() > end) {
                throw new TimeoutException(core.bus().devices().toString());
            }
            LockSupport.parkNanos(200_000);
        }
    }

    @Test
    void everyRequestReachesTheFile() throws Exception {
        Path image = image();
        attach("file:" + image + ",queues=2,serial=a disk");
        assertEquals("a disk", disk.serial());
        assertEquals(2, disk.queueCount());
        assertEquals(BYTES, disk.capacityBytes());
        byte[] model = new byte[BYTES];
        Random random = new Random(5);
        for (int i = 0; i < 200; i++) {
            int length = 512 * (1 + random.nextInt(i % 20 == 0 ? 6000 : 30));
            int offset = random.nextInt((BYTES - length) / 512) * 512;
            byte[] data = new byte[length];
            switch (random.nextInt(5)) {
                case 0 -> {
                    disk.discard(offset, length).join();
                    Arrays.fill(model, offset, offset + length, (byte) 0);
                }
                case 1 -> {
                    disk.writeZeroes(offset, length, random.nextBoolean()).join();
                    Arrays.fill(model, offset, offset + length, (byte) 0);
                }
                case 2, 3 -> {
                    random.nextBytes(data);
                    disk.write(offset, MemorySegment.ofArray(data)).join();
                    System.arraycopy(data, 0, model, offset, length);
                }
                default -> {
                    disk.read(offset, MemorySegment.ofArray(data)).join();
                    assertArrayEquals(Arrays.copyOfRange(model, offset, offset + length), data);
                }
            }
        }
        disk.flush().join();
        assertArrayEquals(model, Files.readAllBytes(image));
        ByteBuffer all = ByteBuffer.allocate(BYTES);
        try (SeekableByteChannel channel = disk.channel()) {
            while (all.hasRemaining()) {
                assertTrue(channel.read(all) > 0);
            }
        }
        assertArrayEquals(model, all.array());
    }

    @Test
    void readOnlyFileIsReadOnly() throws Exception {
        attach("file:" + image() + ",readonly,blocksize=4096");
        assertTrue(disk.readOnly());
        assertEquals(4096, disk.blockSize());
        disk.read(0, MemorySegment.ofArray(new byte[4096])).join();
        assertThrows(
                IllegalStateException.class,
                () -> disk.write(0, MemorySegment.ofArray(new byte[4096])));
    }

    @Test
    void swapsUnderLoadBetweenTwoPathsToOneFileLoseNothing() throws Exception {
        Path image = image();
        attach("file:" + image);
        core.bus().export("file:" + image, "mmio:b");
        BlockDevice service = disk;
        try (ExecutorService threads = Executors.newFixedThreadPool(3)) {
            List<Future<Void>> loads = new ArrayList<>();
            for (int user = 0; user < 3; user++) {
                loads.add(threads.submit(load(service, user)));
            }
            for (int swaps = 0; swaps < 20; swaps++) {
                core.bus().swap("blk0", swaps % 2 == 0 ? "mmio:b" : "mmio:a");
                progressOf(loads);
            }
            finish(loads);
            assertSame(service, disk);
        }
    }

    private void progressOf(List<Future<Void>> loads) {
        long goal = progress.sum() + 10;
        while (progress.sum() < goal && loads.stream().noneMatch(Future::isDone)) {
            LockSupport.parkNanos(100_000);
        }
    }

    private void finish(List<Future<Void>> loads) throws Exception {
        stop = true;
        for (Future<Void> load : loads) {
            load.get();
        }
    }

    private Callable<Void> load(BlockDevice disk, int user) {
        return () -> {
            int depth = 8;
            MemorySegment memory = disk.allocate(depth * 4096L);
            MemorySegment back = Arena.ofAuto().allocate(depth * 4096L);
            long[] tokens = new long[depth];
            int[] results = new int[depth];
            Random random = new Random(user);
            try (BlockQueue queue = disk.openQueue(0, depth)) {
                while (!stop) {
                    memory.fill((byte) random.nextInt());
                    for (int pass = 0; pass < 2; pass++) {
                        for (int i = 0; i < depth; i++) {
                            long offset = user * (1L << 20) + i * 8192L;
                            assertTrue(
                                    pass == 0
                                            ? queue.write(
                                                    offset, memory.asSlice(i * 4096L, 4096), i)
                                            : queue.read(offset, back.asSlice(i * 4096L, 4096), i));
                        }
                        queue.submit();
                        for (int left = depth; left > 0; ) {
                            int n =
                                    user == 0
                                            ? queue.poll(tokens, results)
                                            : queue.await(tokens, results, 1000);
                            for (int i = 0; i < n; i++) {
                                assertEquals(BlockQueue.OK, results[i]);
                            }
                            left -= n;
                        }
                        progress.increment();
                    }
                    assertEquals(-1, memory.mismatch(back));
                }
            }
            disk.free(memory);
            return null;
        };
    }

    @Test
    void anotherRamDiskIsRefusedAndTheOldOneServesOn() throws Exception {
        attach("ram:1MiB");
        core.bus().export("ram:1MiB", "mmio:b");
        core.bus().export("ram:2MiB", "mmio:c");
        byte[] data = new byte[512];
        data[7] = 7;
        disk.write(0, MemorySegment.ofArray(data)).join();
        String serial =
                assertThrows(VirtioException.class, () -> core.bus().swap("blk0", "mmio:b"))
                        .getMessage();
        assertTrue(serial.contains("not the same disk: serial is 'ram-"), serial);
        String capacity =
                assertThrows(VirtioException.class, () -> core.bus().swap("blk0", "mmio:c"))
                        .getMessage();
        assertTrue(capacity.contains("capacity in bytes is 1048576, of the new"), capacity);
        byte[] read = new byte[512];
        disk.read(0, MemorySegment.ofArray(read)).join();
        assertEquals(7, read[7]);
    }

    @Test
    void transportThatLeavesAndComesBackCostsOnlyTime() throws Exception {
        attach("ram:8MiB");
        try (ExecutorService threads = Executors.newFixedThreadPool(2)) {
            List<Future<Void>> loads =
                    List.of(threads.submit(load(disk, 0)), threads.submit(load(disk, 1)));
            for (int i = 0; i < 10; i++) {
                core.unbindTransport(mmio, ops);
                await(DeviceSnapshot.State.FROZEN);
                core.rebindTransport(mmio, ops);
                await(DeviceSnapshot.State.ACTIVE);
                progressOf(loads);
            }
            finish(loads);
        }
    }

    @Test
    void driverThatLeavesGivesBackAndComesBack() throws Exception {
        attach("ram:1MiB");
        BlockDevice first = disk;
        BlockQueue queue = first.openQueue(0, 4);
        MemorySegment memory = first.allocate(4096);
        memory.fill((byte) 5);
        first.write(0, memory).join();
        core.unbindDriver(driver);
        assertEquals(null, disk);
        assertThrows(IllegalStateException.class, () -> memory.get(ValueLayout.JAVA_BYTE, 0));
        queue.flush(1);
        queue.submit();
        long[] tokens = new long[1];
        int[] results = new int[1];
        assertEquals(1, queue.poll(tokens, results));
        assertEquals(BlockQueue.GONE, results[0]);
        queue.close();
        core.bindDriver(driver);
        await(DeviceSnapshot.State.ACTIVE);
        byte[] read = new byte[512];
        disk.read(0, MemorySegment.ofArray(read)).join();
        assertEquals(5, read[511]);
    }

    @Test
    void memoryOfOneThreadIsRefusedAndTheDiskGoesOn() throws Exception {
        attach("ram:1MiB");
        try (Arena arena = Arena.ofConfined();
                BlockQueue queue = disk.openQueue(0, 4)) {
            MemorySegment confined = arena.allocate(4096);
            String message =
                    assertThrows(IllegalArgumentException.class, () -> disk.read(0, confined))
                            .getMessage();
            assertEquals(
                    "4096 bytes that one thread alone may access, every thread must be allowed to",
                    message);
            assertThrows(IllegalArgumentException.class, () -> disk.write(0, confined));
            assertThrows(IllegalArgumentException.class, () -> queue.read(0, confined, 1));
            assertThrows(IllegalArgumentException.class, () -> queue.write(0, confined, 1));
            assertEquals(0, queue.inFlight());
        }
        disk.read(0, MemorySegment.ofArray(new byte[4096])).join();
    }

    @Test
    void memoryThatIsClosedInFlightFailsItsRequestAlone() throws Exception {
        attach("ram:1MiB");
        try (BlockQueue queue = disk.openQueue(0, 4)) {
            MemorySegment good = Arena.ofAuto().allocate(4096);
            // Once its interrupt has come, none comes for what is polled.
            disk.flush().join();
            assertEquals(0, queue.poll(new long[1], new int[1]));
            // There are 512 bounce slots, of which none may be lost.
            for (int i = 0; i < 600; i++) {
                Arena late = Arena.ofShared();
                assertTrue(queue.read(0, late.allocate(4096), BlockQueue.IO_ERROR));
                assertTrue(queue.read(4096, good, BlockQueue.OK));
                queue.submit();
                late.close();
                assertTokensAreResults(queue, 2);
                Arena early = Arena.ofShared();
                assertTrue(queue.write(0, early.allocate(4096), BlockQueue.IO_ERROR));
                assertTrue(queue.write(4096, good, BlockQueue.OK));
                early.close();
                queue.submit();
                assertTokensAreResults(queue, 2);
            }
        }
        Arena closed = Arena.ofShared();
        MemorySegment segment = closed.allocate(4096);
        closed.close();
        String message =
                assertThrows(CompletionException.class, () -> disk.write(0, segment).join())
                        .getCause()
                        .getMessage();
        assertEquals("blk0: write of 4096 bytes at 0 failed: its memory was closed", message);
    }

    private static void assertTokensAreResults(BlockQueue queue, int left) {
        long[] tokens = new long[left];
        int[] results = new int[left];
        for (int done = 0; done < left; ) {
            int n = queue.poll(tokens, results);
            for (int i = 0; i < n; i++) {
                assertEquals(tokens[i], results[i]);
            }
            done += n;
        }
    }

    @Test
    @Tag("DRV-BLK-011")
    @Tag("DEV-BLK-019")
    void growthOfTheFileReachesTheConsumer() throws Exception {
        Path image = image();
        attach("file:" + image);
        CountDownLatch grown = new CountDownLatch(1);
        disk.onCapacityChange(grown::countDown);
        try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
            file.setLength(2L * BYTES);
        }
        disk.flush().join();
        assertTrue(grown.await(20, TimeUnit.SECONDS));
        assertEquals(2L * BYTES, disk.capacityBytes());
        disk.write(BYTES, MemorySegment.ofArray(new byte[512])).join();
    }

    @Test
    void steadyStateAllocatesNothing() throws Exception {
        attach("ram:8MiB");
        int depth = 32;
        MemorySegment[] buffers = new MemorySegment[depth];
        for (int i = 0; i < depth; i++) {
            buffers[i] = disk.allocate(4096);
        }
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        for (boolean wait : new boolean[] {false, true}) {
            try (BlockQueue queue = disk.openQueue(0, depth)) {
                long[] tokens = new long[depth];
                int[] results = new int[depth];
                burst(queue, buffers, tokens, results, 500, wait);
                long least = Long.MAX_VALUE;
                // Until it is compiled, however long a busy machine takes for that.
                long end = System.nanoTime() + 30_000_000_000L;
                while (least >= 1000 && System.nanoTime() - end < 0) {
                    long before = threads.getCurrentThreadAllocatedBytes();
                    burst(queue, buffers, tokens, results, 200, wait);
                    least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
                }
                System.out.printf(
                        "%s: %d bytes allocated for %d requests%n",
                        wait ? "interrupt" : "poll", least, 200 * depth);
                assertTrue(least < 1000, least + " bytes");
            }
        }
    }

    private static void burst(
            BlockQueue queue,
            MemorySegment[] buffers,
            long[] tokens,
            int[] results,
            int bursts,
            boolean wait)
            throws Exception {
        for (int burst = 0; burst < bursts; burst++) {
            for (int i = 0; i < buffers.length; i++) {
                if (i % 4 == 3) {
                    queue.write(i * 4096L, buffers[i], i);
                } else {
                    queue.read(i * 4096L, buffers[i], i);
                }
            }
            queue.submit();
            for (int count = 0; count < buffers.length; ) {
                count += wait ? queue.await(tokens, results, 1000) : queue.poll(tokens, results);
            }
        }
    }
}
