package virtio.shell;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;

/**
 * Random reads and writes that know what every block must hold: each write of a block carries its
 * next generation, each read is compared with the generation that was last acknowledged.
 *
 * <p>When the disk's driver is replaced, what failed by name is written again to the new service.
 */
final class Load implements Runnable {
    private static final int BLOCK_BYTES = 4096;
    private static final int DEPTH = 16;
    private static final long DISK_TIMEOUT_MILLIS = 10_000;

    private final Disks disks;
    private final String name;

    /** By block: what it holds, as far as it was acknowledged. */
    private final int[] generations;

    private final MemorySegment expected = MemorySegment.ofArray(new byte[BLOCK_BYTES]);
    private volatile boolean stopping;
    private volatile long completed;
    private volatile long repeated;
    private volatile long lastCompletionNanos;
    private volatile long longestGapNanos;
    private volatile Throwable failure;

    Load(Disks disks, BlockDevice disk) {
        this.disks = disks;
        this.name = disk.name();
        this.generations = new int[(int) (disk.capacityBytes() / BLOCK_BYTES)];
    }

    long completed() {
        return completed;
    }

    /** Requests that failed by name while the driver was replaced, and were issued again. */
    long repeated() {
        return repeated;
    }

    /** The longest time without a completion since this was called last. */
    long longestGapNanos() {
        long gap = longestGapNanos;
        longestGapNanos = 0;
        return gap;
    }

    /** Returns when {@code count} more requests have completed, or the load has failed. */
    void awaitMore(long count) throws VirtioException, InterruptedException {
        long target = completed + count;
        synchronized (this) {
            while (completed < target && failure == null) {
                wait();
            }
        }
        check();
    }

    void stop() {
        stopping = true;
    }

    void check() throws VirtioException {
        if (failure != null) {
            throw new VirtioException("the load failed: " + failure.getMessage(), failure);
        }
    }

    @Override
    public void run() {
        SplittableRandom random = new SplittableRandom(42);
        Slot[] slots = new Slot[DEPTH];
        Arrays.setAll(slots, Slot::new);
        try {
            lastCompletionNanos = System.nanoTime();
            while (!stopping) {
                drive(disks.await(name, DISK_TIMEOUT_MILLIS), slots, random);
            }
        } catch (InterruptedException | VirtioException | RuntimeException e) {
            failure = e;
        } finally {
            synchronized (this) {
                notifyAll();
            }
        }
    }

    /**
     * A request of one slot, which alone touches the blocks that are its number modulo the depth.
     */
    private static final class Slot {
        final int number;
        boolean write;
        boolean pending;
        int block;

        Slot(int number) {
            this.number = number;
        }

        void next(SplittableRandom random, int blocks) {
            write = random.nextBoolean();
            block = random.nextInt(blocks / DEPTH) * DEPTH + number;
            pending = true;
        }
    }

    /** Until the load is stopped or this service of the disk is gone. */
    private void drive(BlockDevice disk, Slot[] slots, SplittableRandom random)
            throws VirtioException, InterruptedException {
        MemorySegment memory;
        BlockQueue queue;
        try {
            memory = disk.allocate((long) DEPTH * BLOCK_BYTES);
            queue = disk.openQueue(0, DEPTH);
        } catch (VirtioException e) {
            // A disk is gone a moment before its service is: the next one is asked then.
            if (System.nanoTime() - lastCompletionNanos
                    > TimeUnit.MILLISECONDS.toNanos(DISK_TIMEOUT_MILLIS)) {
                throw e;
            }
            Thread.sleep(1);
            return;
        }
        long[] tokens = new long[DEPTH];
        int[] results = new int[DEPTH];
        boolean[] issued = new boolean[DEPTH];
        int inFlight = 0;
        boolean gone = false;
        try {
            while (!gone && !(stopping && inFlight == 0)) {
                for (Slot slot : slots) {
                    if (!issued[slot.number] && (!stopping || slot.pending)) {
                        if (!slot.pending) {
                            slot.next(random, generations.length);
                        }
                        if (!issue(queue, slot, piece(memory, slot))) {
                            break;
                        }
                        issued[slot.number] = true;
                        inFlight++;
                    }
                }
                queue.submit();
                int n = queue.await(tokens, results, 1000);
                for (int i = 0; i < n; i++) {
                    Slot slot = slots[(int) tokens[i]];
                    issued[slot.number] = false;
                    inFlight--;
                    if (results[i] == BlockQueue.GONE) {
                        gone = true;
                        repeated++;
                    } else {
                        complete(slot, results[i], piece(memory, slot));
                    }
                }
                if (n > 0 && !gone) {
                    progress(n);
                }
            }
        } catch (IllegalStateException e) {
            // The service was withdrawn between two calls: what is pending goes to the next one.
            repeated += inFlight;
        } finally {
            close(queue);
            free(disk, memory);
        }
    }

    private boolean issue(BlockQueue queue, Slot slot, MemorySegment piece) {
        long offset = (long) slot.block * BLOCK_BYTES;
        if (!slot.write) {
            return queue.read(offset, piece, slot.number);
        }
        fill(piece, slot.block, generations[slot.block] + 1);
        return queue.write(offset, piece, slot.number);
    }

    private void complete(Slot slot, int result, MemorySegment piece) throws VirtioException {
        if (result != BlockQueue.OK) {
            throw new VirtioException(
                    "%s of block %d ended with result %d"
                            .formatted(slot.write ? "write" : "read", slot.block, result));
        }
        if (slot.write) {
            generations[slot.block]++;
        } else {
            verify(slot.block, piece);
        }
        slot.pending = false;
    }

    /** Compares a block with what was last acknowledged. */
    void verify(int block, MemorySegment piece) throws VirtioException {
        if (generations[block] == 0) {
            expected.fill((byte) 0);
        } else {
            fill(expected, block, generations[block]);
        }
        long at = expected.mismatch(piece);
        if (at >= 0) {
            throw new VirtioException(
                    "block %d differs from generation %d at byte %d"
                            .formatted(block, generations[block], at));
        }
    }

    private static void fill(MemorySegment piece, int block, int generation) {
        SplittableRandom content = new SplittableRandom((long) block << 32 | generation);
        for (int i = 0; i < BLOCK_BYTES; i += 8) {
            piece.set(ValueLayout.JAVA_LONG_UNALIGNED, i, content.nextLong());
        }
    }

    private synchronized void progress(int count) {
        long now = System.nanoTime();
        longestGapNanos = Math.max(longestGapNanos, now - lastCompletionNanos);
        lastCompletionNanos = now;
        completed += count;
        notifyAll();
    }

    private static MemorySegment piece(MemorySegment memory, Slot slot) {
        return memory.asSlice((long) slot.number * BLOCK_BYTES, BLOCK_BYTES);
    }

    private static void close(BlockQueue queue) {
        try {
            queue.close();
        } catch (VirtioException | IllegalStateException e) {
            // The disk it belonged to is gone, and the queue with it.
        }
    }

    private static void free(BlockDevice disk, MemorySegment memory) {
        try {
            disk.free(memory);
        } catch (IllegalStateException | IllegalArgumentException e) {
            // Given back already, together with the disk.
        }
    }
}
