package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/**
 * Random reads, writes and flushes of a range of blocks by one thread that knows what every block
 * holds: each write of a block has the next generation's content, each read is compared.
 */
final class Traffic {
    static final int BLOCK_BYTES = 4096;
    private static final int DEPTH = 16;

    /** Where the disk is found, again and again as its service is withdrawn. */
    private final Callable<BlockDevice> disks;

    private final int first;
    private final int[] generations;
    private final boolean shared;
    private final MemorySegment expected = MemorySegment.ofArray(new byte[BLOCK_BYTES]);
    private final Slot[] slots = new Slot[DEPTH];
    private final SplittableRandom random = new SplittableRandom(7);
    private Thread thread;
    private int queueIndex;
    private volatile boolean stopping;
    private volatile boolean redeployed;
    private volatile Throwable failure;
    private volatile long completed;
    private volatile long again;

    /** A request; it alone touches the blocks that are its number modulo {@link #DEPTH}. */
    private static final class Slot {
        int block = -1;
        boolean write;
        boolean flush;
        boolean issued;
    }

    /**
     * @param first number of the first block of {@link #BLOCK_BYTES}
     * @param blocks how many, a multiple of 16
     * @param shared whether buffers are the disk's own memory, else of the heap
     */
    Traffic(Callable<BlockDevice> disks, int first, int blocks, boolean shared) {
        this.disks = disks;
        this.first = first;
        this.shared = shared;
        generations = new int[blocks];
        Arrays.setAll(slots, i -> new Slot());
    }

    /** The disk's service may be withdrawn: requests that then fail are made again on the next. */
    Traffic outlivingTheDriver() {
        redeployed = true;
        return this;
    }

    Traffic onQueue(int index) {
        queueIndex = index;
        return this;
    }

    Traffic start() {
        thread = Thread.ofPlatform().name("traffic-" + first).start(this::run);
        return this;
    }

    long completed() {
        return completed;
    }

    /** Requests that ended as gone and were made again. */
    long again() {
        return again;
    }

    /** Waits for so many more completions. */
    void awaitMore(int count) throws Exception {
        long target = completed + count;
        Wait.until(
                count + " more completions",
                () -> {
                    check();
                    return completed >= target;
                });
    }

    /** Lets what is in flight end; every block then holds what was acknowledged last. */
    void stop() throws Exception {
        stopping = true;
        thread.join(TimeUnit.SECONDS.toMillis(40));
        if (thread.isAlive()) {
            AssertionError hanging = new AssertionError("requests hang");
            hanging.setStackTrace(thread.getStackTrace());
            throw hanging;
        }
        check();
        BlockDevice disk = disks.call();
        disk.flush().get(10, TimeUnit.SECONDS);
        MemorySegment block = MemorySegment.ofArray(new byte[BLOCK_BYTES]);
        for (int i = 0; i < generations.length; i++) {
            disk.read((long) (first + i) * BLOCK_BYTES, block).get(10, TimeUnit.SECONDS);
            verify(i, block);
        }
    }

    /** Compares a part of an image with what was acknowledged. */
    void verifyImage(MemorySegment image) {
        for (int i = 0; i < generations.length; i++) {
            verify(i, image.asSlice((long) (first + i) * BLOCK_BYTES, BLOCK_BYTES));
        }
    }

    private void check() {
        if (failure != null) {
            throw new AssertionError("the consumer saw " + failure, failure);
        }
    }

    private void run() {
        try {
            while (!stopping || Arrays.stream(slots).anyMatch(slot -> slot.block >= 0)) {
                drive(disks.call());
            }
        } catch (Exception | Error e) {
            failure = e;
        }
    }

    /** Until stopped, or until the service of this disk is gone. */
    private void drive(BlockDevice disk) throws Exception {
        try (BlockQueue queue = disk.openQueue(queueIndex, DEPTH)) {
            MemorySegment memory =
                    shared
                            ? disk.allocate(DEPTH * BLOCK_BYTES)
                            : MemorySegment.ofArray(new byte[DEPTH * BLOCK_BYTES]);
            drive(queue, memory);
            if (shared) {
                disk.free(memory);
            }
        } catch (VirtioException | IllegalStateException e) {
            // The memory of a disk goes with it.
            if (!redeployed) {
                throw e;
            }
            again++;
        }
        for (Slot slot : slots) {
            slot.issued = false;
        }
    }

    private void drive(BlockQueue queue, MemorySegment memory) throws InterruptedException {
        boolean gone = false;
        long[] tokens = new long[DEPTH];
        int[] results = new int[DEPTH];
        while (queue.inFlight() > 0 || !gone && !(stopping && nothingPending())) {
            for (int i = 0; i < DEPTH && !gone; i++) {
                if (!slots[i].issued) {
                    issue(queue, i, memory.asSlice((long) i * BLOCK_BYTES, BLOCK_BYTES));
                }
            }
            queue.submit();
            int n = queue.await(tokens, results, 30_000);
            if (n == 0 && queue.inFlight() > 0) {
                throw new AssertionError(queue.inFlight() + " requests hang for 30 s");
            }
            gone |= collect(queue, n, tokens, results, memory);
        }
    }

    private boolean collect(
            BlockQueue queue, int n, long[] tokens, int[] results, MemorySegment memory) {
        boolean gone = false;
        for (int i = 0; i < n; i++) {
            int number = (int) tokens[i];
            Slot slot = slots[number];
            slot.issued = false;
            if (results[i] == BlockQueue.GONE && redeployed) {
                gone = true;
                again++;
                continue;
            }
            assertEquals(
                    BlockQueue.OK, results[i], () -> "result of a request, " + queue.goneReason());
            if (!slot.flush) {
                if (slot.write) {
                    generations[slot.block]++;
                } else {
                    verify(slot.block, memory.asSlice((long) number * BLOCK_BYTES, BLOCK_BYTES));
                }
            }
            slot.block = -1;
            completed++;
        }
        return gone;
    }

    private boolean nothingPending() {
        return Arrays.stream(slots).noneMatch(slot -> slot.block >= 0);
    }

    private void issue(BlockQueue queue, int number, MemorySegment memory) {
        Slot slot = slots[number];
        if (slot.block < 0) {
            if (stopping) {
                return;
            }
            slot.block = random.nextInt(generations.length / DEPTH) * DEPTH + number;
            slot.write = random.nextBoolean();
            slot.flush = random.nextInt(64) == 0;
        }
        long offset = (long) (first + slot.block) * BLOCK_BYTES;
        boolean taken;
        if (slot.flush) {
            taken = queue.flush(number);
        } else if (slot.write) {
            fill(memory, slot.block, generations[slot.block] + 1);
            taken = queue.write(offset, memory, number);
        } else {
            taken = queue.read(offset, memory, number);
        }
        slot.issued = taken;
    }

    private void verify(int block, MemorySegment content) {
        fill(expected, block, generations[block]);
        long at = expected.mismatch(content);
        if (at >= 0) {
            throw new AssertionError(
                    "block %d differs from its generation %d at byte %d"
                            .formatted(first + block, generations[block], at));
        }
    }

    private void fill(MemorySegment memory, int block, int generation) {
        if (generation == 0) {
            memory.fill((byte) 0);
            return;
        }
        SplittableRandom content = new SplittableRandom((long) (first + block) << 32 | generation);
        for (int i = 0; i < BLOCK_BYTES; i += 8) {
            memory.set(ValueLayout.JAVA_LONG_UNALIGNED, i, content.nextLong());
        }
    }
}
