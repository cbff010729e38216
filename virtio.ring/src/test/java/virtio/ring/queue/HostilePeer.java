package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;

/**
 * One life of a ring whose memory somebody else writes as well, the same for the same seed: both
 * ends work, break, are reset and started again, and what must hold all the while is checked.
 *
 * <p>Nothing escapes from either end; the driver gets only tokens that it gave, each once, with a
 * length that it offered; a broken queue says why, once; after a reset it works; nothing outside of
 * the shared memory is touched, and nothing stays mapped.
 */
final class HostilePeer {
    private static final int MAX_BYTES = 300;
    private static final byte OURS = 0x5A;

    private final SplittableRandom random;
    private final GuardedMemory memory;
    private final Rig rig;
    private final Striker striker;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment inflight;

    /** What the driver sends: no device may change it. */
    private final MemorySegment out = arena.allocate(4096).fill(OURS);

    private final MemorySegment in = arena.allocate(4096);
    private final MemorySegment scratch = arena.allocate(4096);
    private final ScatterList list = new ScatterList(8);

    /** Mapped all the while, and written by everybody. */
    private CoherentMemory premapped;

    /** Bytes that the device may write by token. */
    private final Map<Long, Long> outstanding = new HashMap<>();

    private long tokens;
    private final List<Chain> held = new ArrayList<>();
    private boolean striking = true;

    /** One in so many steps, and interludes, is a strike. */
    private final int restraint;

    /** What broke queues, without the numbers, and how often. */
    final Map<String, Integer> breaks = new TreeMap<>();

    HostilePeer(GuardedMemory memory, long seed) {
        random = new SplittableRandom(seed);
        this.memory = memory;
        Features features = Features.of(Feature.VERSION_1);
        for (int bit :
                new int[] {
                    Feature.RING_PACKED,
                    Feature.IN_ORDER,
                    Feature.EVENT_IDX,
                    Feature.INDIRECT_DESC,
                    Feature.RING_RESET,
                    Feature.IN_ORDER,
                    Feature.NOTIFICATION_DATA
                }) {
            features = random.nextBoolean() ? features.with(bit) : features;
        }
        DeviceMapping mapping = new DeviceMapping(memory, new MapToken() {});
        rig = new Rig(new Mapped(mapping, memory, memory::live, () -> {}), features);
        boolean tracked = random.nextInt(3) == 0;
        inflight = tracked ? memory.inflight(32 + 32 * 256) : null;
        striker = new Striker(random.split(), memory, rig, inflight);
        restraint = 1 << random.nextInt(5);
        rig.onInterrupt = this::interrupt;
        rig.callback = random.nextInt(8) == 0 ? null : queue -> rig.callbacks++;
    }

    private int size() {
        if (rig.features.has(Feature.RING_PACKED)) {
            return random.nextInt(8) == 0 ? random.nextInt(1, 257) : random.nextInt(1, 12);
        }
        return 1 << (random.nextInt(8) == 0 ? random.nextInt(9) : random.nextInt(4));
    }

    /**
     * @param alongside runs with the striker on a thread of its own as long as the ring lives; null
     *     for strikes between and within steps only
     */
    void run(Alongside alongside) throws Exception {
        memory.interlude = () -> {};
        premapped = rig.mapped.mapping().alloc(4096);
        rig.start(size());
        if (inflight != null) {
            restartDevice();
        }
        memory.interlude = () -> strike(4 * restraint);
        Thread other = alongside == null ? null : alongside.start(striker);
        try {
            for (int steps = random.nextInt(20, 200); steps > 0; steps--) {
                strike(restraint);
                if (random.nextBoolean()) {
                    driverStep(alongside != null);
                } else {
                    deviceStep();
                }
                checkBroken();
            }
        } finally {
            if (other != null) {
                alongside.stop(other);
            }
        }
        striking = false;
        end();
        worksAgain();
        arena.close();
    }

    /** How strikes go on while the ring works. */
    interface Alongside {
        Thread start(Striker striker);

        void stop(Thread thread) throws InterruptedException;
    }

    private void strike(int oneIn) {
        if (striking && random.nextInt(oneIn) == 0) {
            for (int i = random.nextInt(1, 4); i > 0; i--) {
                striker.strike();
            }
        }
    }

    private void interrupt() {
        rig.driver.interrupted();
    }

    private void driverStep(boolean staysInPlace) throws VirtioException {
        DriverEnd driver = rig.driver;
        switch (random.nextInt(14)) {
            case 0, 1, 2, 3 -> {
                for (int i = random.nextInt(1, 6); i > 0; i--) {
                    add();
                }
                driver.kick();
            }
            case 4, 5, 6 -> {
                for (int i = random.nextInt(8); i > 0 && got(driver.get()); i--) {}
            }
            case 7 -> {
                long[] tokens = new long[random.nextInt(1, 9)];
                int[] lengths = new int[tokens.length];
                int count = driver.get(tokens, lengths);
                for (int i = 0; i < count; i++) {
                    got(tokens[i], lengths[i]);
                }
            }
            case 8 -> driver.poll(driver.enableCallbackPrepare());
            case 9 -> driver.disableCallback();
            case 10 -> {
                if (!driver.enableCallback()) {
                    got(driver.get());
                }
            }
            case 11 -> driver.enableCallbackDelayed();
            case 12 -> {
                driver.interrupted();
                assertTrue(driver.snapshot().free() <= driver.size());
            }
            default -> {
                if (driver.broken() != null || random.nextInt(4) == 0) {
                    reset(staysInPlace);
                }
            }
        }
    }

    private void add() {
        if (random.nextInt(4) == 0) {
            addMapped();
        } else {
            addOne();
        }
    }

    private void addMapped() {
        int count = random.nextInt(1, 9);
        long[] mapHandles = new long[count];
        int[] lengths = new int[count];
        long[] given = new long[count];
        boolean write = random.nextBoolean();
        for (int i = 0; i < count; i++) {
            lengths[i] = random.nextInt(1, MAX_BYTES + 1);
            mapHandles[i] = premapped.mapHandle() + random.nextInt(4096 - lengths[i]);
            given[i] = tokens++;
        }
        int added =
                write
                        ? rig.driver.addInMapped(mapHandles, lengths, given, count)
                        : rig.driver.addOutMapped(mapHandles, lengths, given, count);
        for (int i = 0; i < added; i++) {
            outstanding.put(given[i], write ? (long) lengths[i] : 0);
        }
    }

    private void addOne() {
        int most = Math.min(8, rig.driver.maxElements());
        int count = random.nextInt(3) == 0 ? random.nextInt(1, most + 1) : 1;
        int outCount = random.nextInt(count + 1);
        long writable = 0;
        list.clear();
        for (int i = 0; i < count; i++) {
            int length = random.nextInt(1, MAX_BYTES + 1);
            int offset = random.nextInt(4096 - length);
            if (i < outCount) {
                list.out(out, offset, length);
            } else {
                list.in(in, offset, length);
                writable += length;
            }
        }
        if (rig.driver.add(list, tokens)) {
            outstanding.put(tokens, writable);
        }
        tokens++;
    }

    private boolean got(long token) {
        if (token == Virtqueue.NONE) {
            return false;
        }
        got(token, rig.driver.usedLength());
        return true;
    }

    private void got(long token, int usedLength) {
        Long writable = outstanding.remove(token);
        if (writable == null) {
            throw new AssertionError("token " + token + " is not outstanding");
        }
        assertTrue(
                Integer.toUnsignedLong(usedLength) <= writable,
                () -> "used length %d of %d".formatted(usedLength, writable));
    }

    private void recycled(long token) {
        got(token, 0);
    }

    /**
     * @param staysInPlace the striker writes to the ring meanwhile, which so may not go away
     */
    private void reset(boolean staysInPlace) throws VirtioException {
        if (staysInPlace && !rig.features.has(Feature.RING_RESET)) {
            return;
        }
        held.clear();
        if (!rig.features.has(Feature.RING_RESET)) {
            // As after a reset of the whole device: a queue of its own.
            rig.device.stop();
            for (long token; (token = rig.driver.detachUnused()) != Virtqueue.NONE; ) {
                recycled(token);
            }
            rig.driver.close();
            forgetBroken();
            rig.start(size());
        } else if (staysInPlace || random.nextBoolean()) {
            rig.driver.reset(this::recycled);
        } else {
            rig.driver.resize(size(), this::recycled);
        }
        assertEquals(Map.of(), outstanding);
        assertNull(rig.driver.broken());
        forgetBroken();
    }

    private void forgetBroken() {
        rig.driverBroken.clear();
        rig.deviceBroken.clear();
    }

    private void deviceStep() throws VirtioException {
        DeviceEnd device = rig.device;
        switch (random.nextInt(8)) {
            case 0, 1, 2, 3 -> device.serve(new OneBackend(this::process));
            case 4 -> process(device);
            case 5 -> completeSome(0);
            case 6 -> device.notifyDriver();
            default -> {
                if (device.broken() != null || random.nextInt(4) == 0) {
                    restartDevice();
                }
            }
        }
    }

    /** The device dies and comes back, with what it noted. */
    private void restartDevice() {
        int stopped = rig.device.stop();
        // A front-end may say anything about where the device has to go on.
        int position = random.nextInt(16) == 0 ? random.nextInt() : stopped;
        if (random.nextBoolean()) {
            completeSome(0);
        }
        held.clear();
        QueueLayout at = rig.driver.layout();
        try {
            rig.startQueue(
                    0,
                    new QueueLayout(
                            at.size(),
                            at.descriptorArea(),
                            at.driverArea(),
                            at.deviceArea(),
                            position,
                            inflight));
            rig.deviceBroken.clear();
        } catch (VirtioException refused) {
            explained(refused.getMessage());
        }
    }

    private void process(DeviceQueue queue) {
        for (int i = random.nextInt(1, 2 * queue.size() + 3); i > 0; i--) {
            Chain chain = queue.newChain();
            if (!queue.next(chain)) {
                break;
            }
            use(chain);
            if (held.size() < 6 && random.nextInt(4) == 0) {
                held.add(chain);
            } else {
                queue.complete(chain, random.nextLong(chain.writableBytes() + 1));
            }
            strike(4 * restraint);
        }
        completeSome(random.nextInt(3));
    }

    private void completeSome(int left) {
        while (held.size() > left) {
            Chain chain = held.remove(random.nextInt(held.size()));
            rig.device.complete(chain, random.nextLong(chain.writableBytes() + 1));
        }
    }

    private void use(Chain chain) {
        long readable = chain.readableBytes();
        if (readable > 0) {
            long at = random.nextLong(readable);
            long length = Math.min(random.nextInt(1, 4096), readable - at);
            chain.read(at, scratch, 0, length);
            assertTrue(chain.readable(at, length).byteSize() <= length);
            chain.read8(at);
            if (readable - at >= 8) {
                chain.read32(at);
                chain.read64(at);
            }
        }
        long writable = chain.writableBytes();
        if (writable > 0) {
            long at = random.nextLong(writable);
            long length = Math.min(random.nextInt(1, 4096), writable - at);
            switch (random.nextInt(4)) {
                case 0 -> chain.write(at, scratch, 0, length);
                case 1 -> chain.fill(at, length);
                case 2 -> chain.writable(at, length).fill((byte) 3);
                default -> chain.write8(at, 7);
            }
        }
    }

    private void checkBroken() {
        checkBroken(rig.driver.broken(), rig.driverBroken);
        checkBroken(rig.device.broken(), rig.deviceBroken);
    }

    private static void checkBroken(String broken, List<String> told) {
        assertEquals(broken == null ? List.of() : List.of(broken), told);
        if (broken != null) {
            explained(broken);
        }
    }

    /** Names a value and a limit, or what is wrong with the value. */
    private static void explained(String sentence) {
        assertTrue(
                sentence.matches(
                        "queue 0.*: (.*\\d.*(limit|not outstanding|not among|not shared|not in"
                            + " memory|not aligned|not 1 for|pieces).*|.*INDIRECT.*|.*indirect"
                            + " table|a device-readable descriptor follows a device-writable one)"),
                sentence);
    }

    private void end() {
        note(rig.driver.broken());
        note(rig.device.broken());
        rig.device.stop();
        rig.driver.fail("the end");
        for (long token; (token = rig.driver.detachUnused()) != Virtqueue.NONE; ) {
            recycled(token);
        }
        assertEquals(Map.of(), outstanding);
        rig.driver.close();
        rig.mapped.mapping().free(premapped);
        assertEquals(0, memory.live(), "live mappings");
        memory.check();
        assertEquals(-1, out.mismatch(arena.allocate(4096).fill(OURS)), "what the driver sent");
    }

    private void note(String broken) {
        if (broken != null) {
            breaks.merge(broken.replaceAll("0x[0-9a-f]+|\\d+", "#"), 1, Integer::sum);
        }
    }

    /** Nothing of all that is left in the memory that a new life begins with. */
    private void worksAgain() throws VirtioException {
        rig.start(size());
        Chain chain = rig.device.newChain();
        for (int i = 0; i < 3 * rig.driver.size(); i++) {
            out.set(ValueLayout.JAVA_INT, 0, i);
            assertTrue(rig.driver.add(list.clear().out(out, 0, 4), i));
            rig.driver.kick();
            assertTrue(rig.device.next(chain));
            assertEquals(i, chain.read32(0));
            rig.device.complete(chain, 0);
            rig.device.notifyDriver();
            long token = rig.driver.get();
            assertNotEquals(Virtqueue.NONE, token);
            assertEquals(i, token);
        }
        assertNull(rig.driver.broken());
        assertNull(rig.device.broken());
        rig.device.stop();
        rig.driver.close();
        assertEquals(0, memory.live(), "live mappings");
    }
}
