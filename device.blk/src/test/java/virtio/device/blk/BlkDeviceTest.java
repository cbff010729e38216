package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.Registration;
import virtio.api.VirtioException;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockQueue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BlkDeviceTest {
    private static final int BYTES = 1 << 20;

    private final List<FakeDisk> fakes = new ArrayList<>();
    private final List<String> announced = new ArrayList<>();
    private final FakeDisk fake = fake(new byte[BYTES]);
    private final long[] tokens = new long[64];
    private final int[] results = new int[64];
    private final LongAdder progress = new LongAdder();
    private volatile boolean stop;

    private FakeDisk fake(byte[] image) {
        FakeDisk another = new FakeDisk(image);
        fakes.add(another);
        return another;
    }

    private BlkDevice probe() throws Exception {
        BlkDriver driver =
                new BlkDriver(
                        d -> {
                            announced.add("+" + d.name());
                            return () -> announced.add("-" + d.name());
                        });
        return (BlkDevice) driver.probe(fake);
    }

    private static void swap(BlkDevice disk, FakeDisk from, FakeDisk to, long drainMillis)
            throws Exception {
        disk.freeze(drainMillis);
        from.reset();
        disk.restore(to);
    }

    @AfterEach
    void noClauseWasBroken() throws Exception {
        for (FakeDisk each : fakes) {
            each.settle();
            each.close();
            assertEquals(List.of(), each.violations);
        }
    }

    private static MemorySegment memory(int bytes) {
        return Arena.ofAuto().allocate(bytes);
    }

    @Test
    void whatTheDeviceHadWhenItWasLostIsSentAgain() throws Exception {
        BlkDevice disk = probe();
        BlockQueue queue = disk.openQueue(0, 8);
        fake.hold = true;
        MemorySegment data = memory(512).fill((byte) 7);
        queue.write(512, data, 1);
        queue.flush(2);
        queue.discard(4096, 4096, 3);
        queue.submit();
        CompletableFuture<Void> read = disk.read(0, memory(512));
        fake.settle();
        disk.freeze(0);
        fake.reset();
        queue.read(8192, memory(512), 4);
        queue.submit();
        assertEquals(0, queue.poll(tokens, results));
        FakeDisk next = fake(fake.image);
        disk.restore(next);
        read.join();
        int count = 0;
        while (count < 4) {
            int n = queue.await(tokens, results, 10_000);
            for (int i = 0; i < n; i++) {
                assertEquals(BlockQueue.OK, results[i]);
            }
            count += n;
        }
        assertEquals(7, next.image[512]);
        queue.close();
    }

    @Test
    void drainLetsTheDeviceFinishAndSendsNothingTwice() throws Exception {
        BlkDevice disk = probe();
        fake.hold = true;
        CompletableFuture<Void> write = disk.write(0, memory(512));
        fake.settle();
        CompletableFuture<Void> freezing = CompletableFuture.runAsync(() -> disk.freeze(30_000));
        fake.release();
        freezing.join();
        // By the device that was drained: the next one is not there yet. Who took the answer tells
        // without any lock, so that freeze may return a moment before.
        write.get(20, TimeUnit.SECONDS);
        fake.reset();
        FakeDisk next = fake(fake.image);
        disk.restore(next);
        assertEquals(List.of("8@0+20"), next.takeServed());
    }

    @Test
    void swapsUnderLoadLoseNothing() throws Exception {
        BlkDevice disk = probe();
        int users = 4;
        ExecutorService threads = Executors.newFixedThreadPool(users);
        try {
            List<Future<Void>> loads = new ArrayList<>();
            for (int user = 0; user < users; user++) {
                loads.add(threads.submit(load(disk, user, user == 3 ? 0 : user)));
            }
            Random random = new Random(1);
            FakeDisk current = fake;
            for (int swaps = 0; swaps < 40; swaps++) {
                FakeDisk next = fake(fake.image);
                next.reverse = random.nextBoolean();
                next.queueSize = 4 << random.nextInt(5);
                current.hold = random.nextInt(3) == 0;
                swap(disk, current, next, random.nextInt(3) * 2L);
                current.close();
                current = next;
                long goal = progress.sum() + random.nextInt(40);
                while (progress.sum() < goal && loads.stream().noneMatch(Future::isDone)) {
                    LockSupport.parkNanos(100_000);
                }
            }
            stop = true;
            for (Future<Void> load : loads) {
                load.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    /** Writes and reads back its own blocks: polling, by interrupt, or by futures. */
    private Callable<Void> load(BlkDevice disk, int user, int mode) {
        return () -> {
            MemorySegment out = disk.allocate(8192);
            MemorySegment in = memory(8192);
            Random random = new Random(user);
            long[] tokens = new long[8];
            int[] results = new int[8];
            try (BlockQueue queue = disk.openQueue(0, 4)) {
                while (!stop) {
                    long offset = user * 65536L + random.nextInt(15) * 4096;
                    out.fill((byte) random.nextInt());
                    if (mode == 2) {
                        disk.write(offset, out).join();
                        disk.read(offset, in).join();
                    } else {
                        assertTrue(queue.write(offset, out, 1));
                        queue.submit();
                        one(queue, mode, tokens, results);
                        assertTrue(queue.read(offset, in, 2));
                        queue.submit();
                        one(queue, mode, tokens, results);
                    }
                    assertEquals(-1, out.mismatch(in));
                    progress.increment();
                }
            }
            disk.free(out);
            return null;
        };
    }

    private static void one(BlockQueue queue, int mode, long[] tokens, int[] results)
            throws Exception {
        int n = 0;
        while (n == 0) {
            n = mode == 0 ? queue.poll(tokens, results) : queue.await(tokens, results, 1000);
            if (mode == 0) {
                Thread.onSpinWait();
            }
        }
        assertEquals(1, n);
        assertEquals(BlockQueue.OK, results[0]);
    }

    @Test
    void abandonedRequestsEndWithTheReasonUntilTheDeviceIsBack() throws Exception {
        BlkDevice disk = probe();
        BlockQueue queue = disk.openQueue(0, 4);
        fake.hold = true;
        queue.read(0, memory(512), 1);
        queue.submit();
        CompletableFuture<Void> future = disk.write(0, memory(512));
        disk.freeze(0);
        fake.reset();
        assertFalse(future.isDone());
        disk.abandon(new VirtioException("mmio:emu0 was not back within 10 s"));
        assertEquals(1, queue.poll(tokens, results));
        assertEquals(BlockQueue.GONE, results[0]);
        assertEquals("mmio:emu0 was not back within 10 s", queue.goneReason());
        String message =
                assertThrows(CompletionException.class, future::join).getCause().getMessage();
        assertEquals(
                "blk0: write of 512 bytes at 0 failed: mmio:emu0 was not back within 10 s",
                message);
        queue.flush(2);
        queue.submit();
        assertEquals(1, queue.poll(tokens, results));
        assertEquals(BlockQueue.GONE, results[0]);
        assertTrue(disk.flush().isCompletedExceptionally());
        assertThrows(VirtioException.class, () -> disk.openQueue(0, 1));
        assertThrows(VirtioException.class, () -> disk.allocate(1));
        disk.restore(fake(fake.image));
        disk.flush().join();
        queue.read(0, memory(512), 3);
        queue.submit();
        assertEquals(1, queue.await(tokens, results, 10_000));
        assertEquals(BlockQueue.OK, results[0]);
        queue.close();
        assertEquals(List.of("+blk0"), announced, "consumers keep their service");
    }

    @Test
    void removalEndsEverythingAndGivesEverythingBack() throws Exception {
        BlkDevice disk = probe();
        BlockQueue queue = disk.openQueue(0, 4);
        MemorySegment kept = disk.allocate(10_000);
        MemorySegment freed = disk.allocate(512);
        disk.free(freed);
        assertThrows(IllegalArgumentException.class, () -> disk.free(freed));
        fake.hold = true;
        queue.read(0, kept.asSlice(0, 512), 1);
        queue.submit();
        Thread parked =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        queue.await(tokens, results, 50_000);
                                    } catch (InterruptedException e) {
                                        results[0] = -1;
                                    }
                                });
        disk.freeze(0);
        fake.reset();
        disk.remove();
        parked.join();
        assertEquals(BlockQueue.GONE, results[0]);
        assertEquals(List.of("+blk0", "-blk0"), announced);
        assertEquals(0, fake.memory.live());
        disk.free(kept);
        queue.close();
        assertThrows(VirtioException.class, () -> disk.allocate(1));
    }

    @Test
    void memoryOutlivesASwapAndGoesBackWhereItCameFrom() throws Exception {
        BlkDevice disk = probe();
        MemorySegment memory = disk.allocate(512);
        FakeDisk next = fake(fake.image);
        swap(disk, fake, next, 0);
        assertEquals(1, fake.memory.live(), "the slots went back, the buffer stays");
        memory.fill((byte) 3);
        disk.write(0, memory).join();
        assertEquals(3, next.image[0]);
        disk.free(memory);
        assertEquals(0, fake.memory.live());
        assertEquals(1, next.memory.live());
    }

    @Test
    void allocationWaitsForTheSwap() throws Exception {
        BlkDevice disk = probe();
        disk.freeze(0);
        fake.reset();
        CompletableFuture<MemorySegment> memory =
                CompletableFuture.supplyAsync(
                        () -> {
                            try {
                                return disk.allocate(512);
                            } catch (VirtioException e) {
                                throw new CompletionException(e);
                            }
                        });
        FakeDisk next = fake(fake.image);
        disk.restore(next);
        disk.free(memory.join());
        assertEquals(0, fake.memory.live());
        next.memory.room = 100;
        String message = assertThrows(VirtioException.class, () -> disk.allocate(512)).getMessage();
        assertEquals("blk0: no room for 512 bytes of memory that the device can see", message);
    }

    @Test
    void anotherDiskIsRefusedWithBothValuesAndTheOldOneServesOn() throws Exception {
        BlkDevice disk = probe();
        FakeDisk smaller = fake(new byte[BYTES / 2]);
        FakeDisk blocks = fake(fake.image);
        blocks.features = blocks.features.with(BlockFeature.BLK_SIZE);
        blocks.set32(BlockConfig.BLK_SIZE, 4096);
        FakeDisk readOnly = fake(fake.image);
        readOnly.features = readOnly.features.with(BlockFeature.RO);
        FakeDisk noFlush = fake(fake.image);
        noFlush.features = noFlush.features.without(BlockFeature.FLUSH);
        FakeDisk noDiscard = fake(fake.image);
        noDiscard.features = noDiscard.features.without(BlockFeature.DISCARD);
        FakeDisk other = fake(fake.image);
        other.serial = "stranger";
        Object[][] expected = {
            {smaller, "capacity in bytes is 1048576, of the new device 524288"},
            {blocks, "block size in bytes is 512, of the new device 4096"},
            {readOnly, "the disk is writable, the new one is read-only"},
            {noFlush, "FLUSH is in use, the new device does not offer it"},
            {noDiscard, "DISCARD is in use, the new device does not offer it"},
            {other, "serial is 'fake', of the new device 'stranger'"}
        };
        disk.freeze(0);
        fake.reset();
        CompletableFuture<Void> waiting = disk.flush();
        for (Object[] pair : expected) {
            FakeDisk next = (FakeDisk) pair[0];
            String message =
                    assertThrows(VirtioException.class, () -> disk.restore(next)).getMessage();
            assertEquals("blk0: not the same disk: " + pair[1], message);
            if (next != other) {
                message =
                        assertThrows(
                                        VirtioException.class,
                                        () -> disk.compatible(next.features, next.config()))
                                .getMessage();
                assertEquals("blk0: not the same disk: " + pair[1], message);
            }
            next.reset();
            assertFalse(waiting.isDone());
        }
        disk.restore(fake);
        waiting.join();
        assertEquals(0, other.memory.live());
    }

    @Test
    @Tag("DRV-BLK-011")
    void newCapacityIsAnnounced() throws Exception {
        BlkDevice disk = probe();
        List<Long> seen = new ArrayList<>();
        Registration listening = disk.onCapacityChange(() -> seen.add(disk.capacityBytes()));
        disk.onCapacityChange(
                () -> {
                    throw new IllegalStateException("a consumer's mistake");
                });
        fake.set64(BlockConfig.CAPACITY_SECTORS, 4000);
        disk.configChanged();
        disk.configChanged();
        assertEquals(List.of(4000L * 512), seen);
        fake.set64(BlockConfig.CAPACITY_SECTORS, -1);
        disk.configChanged();
        assertEquals(4000 * 512, disk.capacityBytes());
        listening.close();
        fake.set64(BlockConfig.CAPACITY_SECTORS, 100);
        disk.configChanged();
        assertEquals(1, seen.size());
        assertThrows(IllegalArgumentException.class, () -> disk.read(51200, memory(512)));
    }

    @Test
    void brokenQueueIsReportedOnceAndRequestsWait() throws Exception {
        BlkDevice disk = probe();
        fake.queues[0].broken = "used id 999, the limit is 255";
        CompletableFuture<Void> first = disk.flush();
        CompletableFuture<Void> second = disk.flush();
        assertEquals(List.of("used id 999, the limit is 255"), List.copyOf(fake.resets));
        assertFalse(first.isDone());
        swap(disk, fake, fake(fake.image), 1000);
        first.join();
        second.join();
    }

    @Test
    void threadsSpreadOverTheQueues() throws Exception {
        fake.features = fake.features.with(BlockFeature.MQ);
        fake.set32(BlockConfig.NUM_QUEUES, 2);
        BlkDevice disk = probe();
        assertEquals(2, disk.queueCount());
        assertThrows(IllegalArgumentException.class, () -> disk.openQueue(2, 1));
        assertThrows(IllegalArgumentException.class, () -> disk.openQueue(0, 0));
        BlockQueue queue = disk.openQueue(1, 1);
        queue.read(0, memory(512), 1);
        queue.submit();
        assertEquals(1, queue.await(tokens, results, 10_000));
        queue.close();
        assertEquals(1, fake.queues[1].kicks);
        FakeDisk fewer = fake(fake.image);
        String message =
                assertThrows(
                                VirtioException.class,
                                () -> disk.compatible(fewer.features, fewer.config()))
                        .getMessage();
        assertTrue(message.endsWith("2 queues are in use, the new device has 1"), message);
    }

    @Test
    void heapMemoryIsAsGood() throws Exception {
        BlkDevice disk = probe();
        byte[] data = new byte[1024];
        data[1023] = 9;
        disk.write(0, MemorySegment.ofArray(data)).join();
        byte[] read = new byte[1024];
        disk.read(0, MemorySegment.ofArray(read)).join();
        assertEquals(9, MemorySegment.ofArray(read).get(ValueLayout.JAVA_BYTE, 1023));
    }
}
