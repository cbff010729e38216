package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockQueue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BlkQueueTest {
    private static final int BYTES = 1 << 20;

    private final FakeDisk fake = new FakeDisk(BYTES);
    private final long[] tokens = new long[64];
    private final int[] results = new int[64];
    private BlkDevice disk;

    private BlkDevice probe() throws Exception {
        disk = (BlkDevice) new BlkDriver(d -> () -> {}).probe(fake);
        fake.takeServed();
        return disk;
    }

    @AfterEach
    void noClauseWasBroken() throws Exception {
        fake.settle();
        fake.close();
        assertEquals(List.of(), fake.violations);
    }

    private static MemorySegment memory(int bytes, long seed) {
        byte[] data = new byte[bytes];
        new Random(seed).nextBytes(data);
        MemorySegment memory = Arena.ofAuto().allocate(bytes);
        memory.copyFrom(MemorySegment.ofArray(data));
        return memory;
    }

    private int pollOne(BlockQueue queue) {
        int count;
        do {
            Thread.onSpinWait();
            count = queue.poll(tokens, results);
        } while (count == 0);
        assertEquals(1, count);
        return results[0];
    }

    @Test
    void tokensComeBackWhateverTheOrder() throws Exception {
        BlockQueue queue = probe().openQueue(0, 8);
        fake.reverse = true;
        fake.hold = true;
        for (int i = 0; i < 8; i++) {
            assertTrue(queue.read(i * 512L, memory(512, 1), 100 + i));
        }
        assertFalse(queue.read(0, memory(512, 1), 1), "beyond the depth");
        assertEquals(8, queue.inFlight());
        assertEquals(0, queue.poll(tokens, results));
        queue.submit();
        fake.release();
        int count = 0;
        long sum = 0;
        while (count < 8) {
            int n = queue.poll(tokens, results);
            for (int i = 0; i < n; i++) {
                assertEquals(BlockQueue.OK, results[i]);
                sum += tokens[i];
            }
            count += n;
        }
        assertEquals(8 * 100 + 28, sum);
        assertEquals(0, queue.inFlight());
        assertNull(queue.goneReason());
        queue.close();
    }

    @Test
    @Tag("DRV-BLK-012")
    void requestsBeyondTheDiskOrOffTheBlocksAreRefusedWithTheirLimits() throws Exception {
        BlockQueue queue = probe().openQueue(0, 8);
        MemorySegment two = memory(1024, 1);
        for (long offset : new long[] {BYTES - 512, BYTES, -512, Long.MAX_VALUE - 511}) {
            String message =
                    assertThrows(IllegalArgumentException.class, () -> queue.read(offset, two, 1))
                            .getMessage();
            assertTrue(message.contains("blk0, which has 1048576 bytes"), message);
            assertThrows(IllegalArgumentException.class, () -> queue.write(offset, two, 1));
            assertThrows(IllegalArgumentException.class, () -> queue.discard(offset, 1024, 1));
            assertThrows(IllegalArgumentException.class, () -> disk.read(offset, two));
        }
        String message =
                assertThrows(IllegalArgumentException.class, () -> queue.read(0, memory(513, 1), 1))
                        .getMessage();
        assertEquals("513 bytes at 0 are not whole blocks of 512 bytes", message);
        assertThrows(IllegalArgumentException.class, () -> queue.write(1, two, 1));
        assertThrows(IllegalArgumentException.class, () -> queue.read(0, two.asReadOnly(), 1));
        assertThrows(IllegalArgumentException.class, () -> queue.writeZeroes(0, 0, false, 1));
        assertEquals(0, queue.inFlight());
        queue.close();
        assertThrows(IllegalStateException.class, () -> queue.flush(1));
    }

    @Test
    @Tag("DRV-BLK-013")
    void readOnlyDiskRefusesWrites() throws Exception {
        fake.features = fake.features.with(BlockFeature.RO);
        BlockQueue queue = probe().openQueue(0, 8);
        assertTrue(disk.readOnly());
        assertFalse(disk.canDiscard());
        String message =
                assertThrows(IllegalStateException.class, () -> queue.write(0, memory(512, 1), 1))
                        .getMessage();
        assertEquals("blk0 is read-only", message);
        assertThrows(IllegalStateException.class, () -> disk.writeZeroes(0, 512, false));
        queue.close();
    }

    @Test
    @Tag("DRV-BLK-016")
    void largeRequestsAreSplitAndJoined() throws Exception {
        fake.features = fake.features.with(BlockFeature.SIZE_MAX);
        fake.set32(BlockConfig.SIZE_MAX, 1000);
        fake.set32(BlockConfig.SEG_MAX, 3);
        fake.queueSize = 16;
        probe();
        MemorySegment data = memory(300 * 512, 7);
        disk.write(512, data).join();
        assertEquals(100, fake.takeServed().size());
        MemorySegment read = memory(300 * 512, 8);
        disk.read(512, read).join();
        assertEquals(-1, data.mismatch(read));
        assertEquals(-1, data.mismatch(MemorySegment.ofArray(fake.image).asSlice(512, 153600)));
    }

    @Test
    void requestLargerThanTheWholeRingGoesThroughOneQueue() throws Exception {
        fake.set32(BlockConfig.SEG_MAX, 1);
        fake.memory.maxMappingSize = 1024;
        fake.queueSize = 4;
        BlockQueue queue = probe().openQueue(0, 1);
        MemorySegment data = memory(BYTES, 7);
        assertTrue(queue.write(0, data, 5));
        queue.submit();
        assertEquals(BlockQueue.OK, pollOne(queue));
        assertArrayEquals(data.toArray(ValueLayout.JAVA_BYTE), fake.image);
        queue.close();
    }

    @Test
    void oneFailedPartFailsTheRequestOnce() throws Exception {
        fake.set32(BlockConfig.SEG_MAX, 1);
        fake.memory.maxMappingSize = 512;
        fake.queueSize = 4;
        BlockQueue queue = probe().openQueue(0, 2);
        fake.status = 1;
        assertTrue(queue.read(0, memory(512 * 100, 1), 5));
        queue.submit();
        assertEquals(BlockQueue.IO_ERROR, pollOne(queue));
        assertTrue(fake.takeServed().size() < 100, "the rest is not sent");
        fake.status = -1;
        assertTrue(queue.read(0, memory(512, 1), 6));
        queue.submit();
        assertEquals(BlockQueue.OK, pollOne(queue));
        assertEquals(6, tokens[0]);
        queue.close();
    }

    @Test
    void statusOfTheDeviceIsTheResult() throws Exception {
        BlockQueue queue = probe().openQueue(0, 2);
        int[][] expected = {
            {0, BlockQueue.OK},
            {1, BlockQueue.IO_ERROR},
            {2, BlockQueue.UNSUPPORTED},
            {3, BlockQueue.IO_ERROR},
            {-2, BlockQueue.IO_ERROR}
        };
        for (int[] pair : expected) {
            fake.status = pair[0];
            queue.read(0, memory(512, 1), 1);
            queue.submit();
            assertEquals(pair[1], pollOne(queue), "status " + pair[0]);
        }
        CompletionException e =
                assertThrows(
                        CompletionException.class, () -> disk.read(512, memory(512, 1)).join());
        assertEquals(
                "blk0: read of 512 bytes at 512 failed: the device reports an I/O error",
                e.getCause().getMessage());
        queue.close();
    }

    @Test
    @Tag("DRV-BLK-014")
    @Tag("DRV-BLK-015")
    void flushCarriesNothing() throws Exception {
        probe();
        disk.flush().join();
        assertEquals(List.of("4@0+0"), fake.takeServed());
    }

    @Test
    @Tag("DRV-BLK-001")
    @Tag("DRV-BLK-002")
    void withoutACacheToFlushNothingIsSent() throws Exception {
        fake.features = fake.features.without(BlockFeature.FLUSH);
        probe();
        disk.flush().join();
        assertEquals(List.of(), fake.takeServed());
    }

    @Test
    @Tag("DRV-BLK-017")
    @Tag("DRV-BLK-019")
    @Tag("DRV-BLK-021")
    @Tag("DRV-BLK-024")
    void rangesAreSplitWhereTheDeviceLikesIt() throws Exception {
        probe();
        disk.discard(3 * 512, 100 * 512).join();
        // 64 sectors at most, each part ending at a multiple of 8.
        assertEquals(List.of("11@3+31232/0", "11@64+19968/0"), fake.takeServed());
        disk.writeZeroes(0, 40 * 512, true).join();
        assertEquals(List.of("13@0+16384/1", "13@32+4096/1"), fake.takeServed());
    }

    @Test
    void whatTheDeviceCannotIsUnsupported() throws Exception {
        fake.features = fake.features.without(BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES);
        BlockQueue queue = probe().openQueue(0, 2);
        assertFalse(disk.canDiscard());
        assertFalse(disk.canWriteZeroes());
        queue.discard(0, 512, 1);
        queue.submit();
        assertEquals(BlockQueue.UNSUPPORTED, pollOne(queue));
        CompletableFuture<Void> zeroes = disk.writeZeroes(0, 512, false);
        assertTrue(zeroes.isCompletedExceptionally());
        assertEquals(List.of(), fake.takeServed());
        queue.close();
    }

    @Test
    void severalUsersShareOneRing() throws Exception {
        fake.queueSize = 8;
        probe();
        BlockQueue a = disk.openQueue(0, 32);
        BlockQueue b = disk.openQueue(0, 32);
        for (int i = 0; i < 32; i++) {
            assertTrue(a.read(0, memory(512, i), i));
            assertTrue(b.read(512, memory(512, i), 1000 + i));
        }
        CompletableFuture<Void> third = disk.read(0, memory(512, 3));
        a.submit();
        b.submit();
        // Only a polls, and so collects for all; b and the future find theirs.
        int count = 0;
        while (count < 32) {
            int n = a.poll(tokens, results);
            for (int i = 0; i < n; i++) {
                assertTrue(tokens[i] < 32);
            }
            count += n;
        }
        count = 0;
        while (count < 32) {
            int n = b.await(tokens, results, 10_000);
            assertTrue(n > 0);
            for (int i = 0; i < n; i++) {
                assertTrue(tokens[i] >= 1000);
            }
            count += n;
        }
        third.join();
        a.close();
        b.close();
    }

    @Test
    void awaitSleepsUntilTheInterrupt() throws Exception {
        BlockQueue queue = probe().openQueue(0, 4);
        fake.hold = true;
        queue.read(0, memory(512, 1), 9);
        queue.submit();
        long start = System.nanoTime();
        assertEquals(0, queue.await(tokens, results, 50));
        assertTrue(System.nanoTime() - start >= 50_000_000);
        Thread releaser =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    while (waiting(Thread.currentThread()) == 0) {
                                        Thread.onSpinWait();
                                    }
                                    fake.release();
                                });
        assertEquals(1, queue.await(tokens, results, 30_000));
        assertEquals(9, tokens[0]);
        releaser.join();
        assertEquals(0, queue.await(tokens, results, 30_000), "nothing to wait for");
        queue.close();
    }

    /** Threads parked in await. */
    private static long waiting(Thread except) {
        return Thread.getAllStackTraces().entrySet().stream()
                .filter(e -> e.getKey() != except)
                .filter(e -> e.getKey().getState() == Thread.State.TIMED_WAITING)
                .filter(
                        e ->
                                Arrays.stream(e.getValue())
                                        .anyMatch(f -> f.getClassName().endsWith(".BlkQueue")))
                .count();
    }

    @Test
    void interruptedAwaitLeavesTheRequestInFlight() throws Exception {
        BlockQueue queue = probe().openQueue(0, 4);
        fake.hold = true;
        queue.read(0, memory(512, 1), 9);
        queue.submit();
        Thread.currentThread().interrupt();
        assertThrows(InterruptedException.class, () -> queue.await(tokens, results, 30_000));
        assertEquals(1, queue.inFlight());
        fake.release();
        assertEquals(BlockQueue.OK, pollOne(queue));
        queue.close();
    }

    @Test
    void mappingWithLittleRoomTakesSmallerParts() throws Exception {
        probe();
        fake.queues[0].mappingRoom = 3000;
        MemorySegment data = memory(100 * 512, 4);
        disk.write(0, data).join();
        MemorySegment read = memory(100 * 512, 5);
        disk.read(0, read).join();
        assertEquals(-1, data.mismatch(read));
    }

    @Test
    void mappingWithoutRoomIsTriedAgainAndThenGivenUp() throws Exception {
        fake.swapTimeoutMillis = 300;
        probe();
        fake.queues[0].mappingRoom = 0;
        CompletableFuture<Void> late = disk.read(0, memory(512, 1));
        fake.queues[0].mappingRoom = 512;
        late.join();
        fake.queues[0].mappingRoom = 0;
        CompletableFuture<Void> never = disk.read(0, memory(512, 1));
        assertThrows(CompletionException.class, never::join);
    }

    @Test
    void whatIsReadToAClosedSegmentIsAnError() throws Exception {
        BlockQueue queue = probe().openQueue(0, 1);
        fake.hold = true;
        Arena arena = Arena.ofShared();
        queue.read(0, arena.allocate(512), 1);
        queue.submit();
        arena.close();
        fake.status = 0;
        fake.release();
        assertEquals(BlockQueue.IO_ERROR, pollOne(queue));
        queue.close();
    }

    @Test
    void segmentClosedBetweenTwoPartsFailsItsRequestOnce() throws Exception {
        fake.set32(BlockConfig.SEG_MAX, 1);
        fake.memory.maxMappingSize = 512;
        fake.queueSize = 4;
        BlockQueue queue = probe().openQueue(0, 4);
        for (int i = 0; i < 3; i++) {
            queue.read(0, memory(512, 1), i);
        }
        queue.submit();
        fake.settle();
        fake.hold = true;
        Arena arena = Arena.ofShared();
        queue.write(0, arena.allocate(2 * 512), 3);
        queue.submit();
        fake.settle();
        arena.close();
        // Of the write, there was room for one part; that is still the device's.
        assertEquals(3, queue.poll(tokens, results));
        assertEquals(0, queue.poll(tokens, results));
        fake.status = 0;
        fake.release();
        assertEquals(BlockQueue.IO_ERROR, pollOne(queue));
        assertEquals(3, tokens[0]);
        assertEquals(0, queue.inFlight());
        queue.close();
    }

    @Test
    void whatThrowsWhileTheRingIsInUseLeavesItToOthers() throws Exception {
        BlockQueue queue = probe().openQueue(0, 1);
        queue.read(0, memory(512, 1), 1);
        queue.submit();
        fake.queues[0].thrown = new UnsupportedOperationException("unmap");
        assertThrows(UnsupportedOperationException.class, () -> queue.poll(tokens, results));
        fake.queues[0].thrown = null;
        assertEquals(BlockQueue.OK, pollOne(queue));
        queue.close();
    }

    @Test
    void closeWaitsForWhatIsInFlightAndNamesWhatIsNotAnswered() throws Exception {
        fake.swapTimeoutMillis = 100;
        probe();
        BlockQueue queue = disk.openQueue(0, 4);
        fake.hold = true;
        queue.read(0, memory(512, 1), 9);
        String message = assertThrows(virtio.api.VirtioException.class, queue::close).getMessage();
        assertEquals("blk0: 1 requests were not answered within 100 ms", message);
        queue.close();
        BlockQueue other = disk.openQueue(0, 4);
        other.write(0, memory(512, 2), 1);
        fake.release();
        other.close();
        assertEquals(0, other.inFlight());
    }

    @Test
    void steadyStateAllocatesNothing() throws Exception {
        fake.note = false;
        BlockQueue queue = probe().openQueue(0, 32);
        MemorySegment[] buffers = new MemorySegment[32];
        for (int i = 0; i < 32; i++) {
            buffers[i] = disk.allocate(4096);
        }
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        fake.spin();
        load(queue, buffers, 200);
        long least = Long.MAX_VALUE;
        // Until it is compiled, however long a busy machine takes for that.
        long end = System.nanoTime() + 30_000_000_000L;
        while (least >= 1000 && System.nanoTime() - end < 0) {
            long before = threads.getCurrentThreadAllocatedBytes();
            load(queue, buffers, 200);
            least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        fake.stopSpinning();
        assertTrue(least < 1000, least + " bytes for 6400 requests");
        queue.close();
    }

    private void load(BlockQueue queue, MemorySegment[] buffers, int bursts) {
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
                count += queue.poll(tokens, results);
                Thread.onSpinWait();
            }
        }
    }
}
