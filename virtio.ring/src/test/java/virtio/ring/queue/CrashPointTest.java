package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A device's end that dies before each single store that it makes to memory which outlives it, once
 * before every one: of taking, using and publishing buffers, one by one and at once, and of the
 * recovery from an earlier death.
 *
 * <p>Runs in the checked run only, where every access to shared memory can be seen.
 */
@Tag("checked")
class CrashPointTest {
    private static final int SIZE = 8;
    private static final int REGION_BYTES = 32 + 32 * SIZE;
    private static final int VERSION_OFFSET = 8;

    /** The next store of a device's end does not come about. */
    private static final class Death extends Error {
        private static final long serialVersionUID = 1;
    }

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment buffers = arena.allocate(64 * 64, 8);

    /** By buffer: how often the backend has done it, and whether the driver has got it. */
    private final int[] done = new int[64];

    private final boolean[] got = new boolean[64];
    private final RingMemory.Bounds checks = RingMemory.bounds;
    private MemorySegment region;
    private Rig rig;
    private int number;

    @BeforeEach
    void open() {
        assertTrue(RingMemory.CHECKED, "without -Dvirtio.ring.checked=true");
    }

    @AfterEach
    void close() {
        RingMemory.bounds = checks;
        shared.close();
        arena.close();
    }

    private void start(boolean packed, boolean inOrder) throws VirtioException {
        Features features = Features.of(Feature.VERSION_1);
        features = packed ? features.with(Feature.RING_PACKED) : features;
        rig = new Rig(Mapped.identity(), inOrder ? features.with(Feature.IN_ORDER) : features);
        rig.start(SIZE);
        region = shared.allocate(REGION_BYTES, 8);
        // As one that was being cleared, from its header on, when the process died.
        region.asSlice(VERSION_OFFSET + 2).fill((byte) -1);
        Arrays.fill(done, 0);
        Arrays.fill(got, false);
        number = 0;
        revive();
    }

    private void revive() throws VirtioException {
        QueueLayout at = rig.driver.layout();
        rig.startQueue(
                0,
                new QueueLayout(
                        SIZE, at.descriptorArea(), at.driverArea(), at.deviceArea(), 0, region));
    }

    private void add(int elements) {
        ScatterList list = new ScatterList(4);
        for (int i = 0; i < elements; i++) {
            list.out(buffers, 64L * number + 8 * i, 8);
        }
        buffers.set(ValueLayout.JAVA_LONG, 64L * number, number);
        rig.driver.add(list, number++);
        rig.driver.kick();
    }

    private List<Chain> take(int most) {
        List<Chain> taken = new ArrayList<>();
        Chain chain = rig.device.newChain();
        while (taken.size() < most && rig.device.next(chain)) {
            done[(int) chain.read64(0)]++;
            taken.add(chain);
            chain = rig.device.newChain();
        }
        return taken;
    }

    private void complete(Chain... chains) {
        rig.device.complete(chains, new long[chains.length], chains.length);
    }

    /** What the driver sees to be used, each once. */
    private void get() {
        for (long token; (token = rig.driver.get()) != Virtqueue.NONE; ) {
            assertTrue(!got[(int) token], "buffer " + token + " is used twice");
            got[(int) token] = true;
        }
        assertNull(rig.driver.broken());
    }

    /** Two lives in which something is left over, and what is used is so singly and at once. */
    private void live() throws VirtioException {
        List<Chain> taken = take(5);
        rig.device.complete(taken.get(1), 0);
        complete(taken.get(3), taken.get(0), taken.get(2));
        revive();
        List<Chain> again = take(1);
        complete(again.getFirst());
    }

    /** Dies before the given store, counted from 0; false when there are no more so many. */
    private boolean dies(int store) {
        int[] left = {store};
        RingMemory.bounds =
                (address, length, write) -> {
                    checks.check(address, length, write);
                    if (write && left[0]-- == 0) {
                        throw new Death();
                    }
                };
        try {
            live();
            return false;
        } catch (Death e) {
            return true;
        } catch (VirtioException e) {
            throw new AssertionError(e);
        } finally {
            RingMemory.bounds = checks;
        }
    }

    /**
     * Whenever it dies, no buffer is lost, and one that the driver could see to be used is not done
     * again.
     */
    @ParameterizedTest
    @CsvSource({"false,false", "false,true", "true,false", "true,true"})
    void nothingIsLostAndNothingThatWasPublishedIsDoneTwice(boolean packed, boolean inOrder)
            throws Exception {
        int stores = 0;
        while (diesAndIsFollowed(packed, inOrder, stores)) {
            stores++;
        }
        assertTrue(stores > 30, stores + " stores");
    }

    /** Whether there was such a store. */
    private boolean diesAndIsFollowed(boolean packed, boolean inOrder, int store)
            throws VirtioException {
        boolean died = false;
        start(packed, inOrder);
        try {
            // The second round goes over the end of the ring.
            for (int round = 0; round < 2; round++) {
                int first = number;
                for (int elements : new int[] {1, 2, 1, 1, 1}) {
                    add(elements);
                }
                died |= dies(store);
                get();
                boolean[] published = got.clone();
                int[] before = done.clone();
                revive();
                for (List<Chain> rest; !(rest = take(1)).isEmpty(); ) {
                    complete(rest.getFirst());
                    // What an earlier life wrote and did not publish must not show behind it.
                    get();
                }
                assertNull(rig.device.broken());
                for (int i = first; i < number; i++) {
                    String which =
                            "buffer %d, dead before store %d of round %d"
                                    .formatted(i, store, round);
                    assertTrue(got[i], which);
                    assertTrue(done[i] > 0, which);
                    if (published[i]) {
                        assertEquals(before[i], done[i], which);
                    }
                }
                assertEquals(SIZE, rig.driver.free());
            }
        } finally {
            rig.close();
        }
        return died;
    }
}
