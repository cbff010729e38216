package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.backend.Chain;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;

/** Buffers that are taken, given back and got many at a time. */
class BurstTest {
    private static final int SIZE = 8;

    private final ScatterList list = new ScatterList(2);
    private final MemorySegment buffer = Arena.ofAuto().allocate(64);
    private final long[] tokens = new long[SIZE];
    private final int[] lengths = new int[SIZE];
    private Rig rig;

    static List<Features> rings() {
        return EndToEndTest.rings();
    }

    private Chain[] start(Features features) throws Exception {
        rig = EndToEndTest.rig("region", features).start(SIZE);
        Chain[] chains = new Chain[SIZE];
        Arrays.setAll(chains, i -> rig.device.newChain());
        return chains;
    }

    @AfterEach
    void close() {
        if (rig != null) {
            rig.close();
        }
    }

    /** Adds a buffer of two elements where the token is odd, of which 8 bytes can be written. */
    private void add(int token) {
        list.clear();
        if ((token & 1) != 0) {
            list.out(buffer, 0, 8);
        }
        assertTrue(rig.driver.add(list.in(buffer, 8, 8), token));
    }

    @ParameterizedTest
    @MethodSource("rings")
    void manyAtATimeAreTheSameAsOneByOne(Features features) throws Exception {
        Chain[] chains = start(features);
        long[] written = new long[SIZE];
        for (int lap = 0; lap < 20; lap++) {
            for (int i = 0; i < 5; i++) {
                add(i);
            }
            assertEquals(0, rig.device.next(chains, SIZE), "before the kick");
            rig.driver.kick();
            assertEquals(3, rig.device.next(chains, 3));
            Chain[] rest = Arrays.copyOfRange(chains, 3, SIZE);
            assertEquals(2, rig.device.next(rest, 5));
            for (int i = 0; i < 5; i++) {
                assertEquals((i & 1) * 8, chains[i].readableBytes());
                written[i] = i;
            }
            rig.device.complete(chains, written, 4);
            assertEquals(4, rig.driver.get(tokens, lengths));
            rig.device.complete(chains[4], 4);
            assertEquals(4, rig.driver.get());
            assertEquals(4, rig.driver.usedLength());
            assertArrayEquals(new long[] {0, 1, 2, 3}, Arrays.copyOf(tokens, 4));
            assertArrayEquals(new int[] {0, 1, 2, 3}, Arrays.copyOf(lengths, 4));
            assertEquals(0, rig.driver.get(tokens, lengths));
        }
        assertNull(rig.device.broken());
        assertNull(rig.driver.broken());
    }

    /** Of both directions, mixed with others, until there is no room, and around the end. */
    @ParameterizedTest
    @MethodSource("rings")
    void premappedOnesAreAddedManyAtATime(Features features) throws Exception {
        Chain[] chains = start(features);
        CoherentMemory memory = rig.mapped.mapping().alloc(64 * SIZE);
        long[] mapHandles = new long[SIZE];
        for (int lap = 0; lap < 50; lap++) {
            int out = lap % 4;
            for (int i = 0; i < SIZE; i++) {
                mapHandles[i] = memory.mapHandle() + 64 * i;
                lengths[i] = i + 1;
                tokens[i] = 100 * lap + i;
                memory.segment().set(ValueLayout.JAVA_BYTE, 64 * i, (byte) (lap + i));
            }
            assertEquals(0, rig.driver.addInMapped(mapHandles, lengths, tokens, 0));
            int before = lap % 3;
            for (int i = 0; i < before; i++) {
                add(-2);
            }
            assertEquals(out, rig.driver.addOutMapped(mapHandles, lengths, tokens, out));
            int room = SIZE - before - out;
            assertEquals(room, rig.driver.addInMapped(mapHandles, lengths, tokens, SIZE));
            assertEquals(0, rig.driver.free());
            assertEquals(0, rig.driver.addInMapped(mapHandles, lengths, tokens, SIZE));
            assertEquals(0, rig.device.next(chains, SIZE), "before the kick");
            rig.driver.kick();
            assertEquals(SIZE, rig.device.next(chains, SIZE));
            for (int i = 0; i < out; i++) {
                assertEquals(i + 1, chains[before + i].readableBytes());
                assertEquals((byte) (lap + i), (byte) chains[before + i].read8(0));
            }
            for (int i = 0; i < room; i++) {
                Chain chain = chains[before + out + i];
                assertEquals(i + 1, chain.writableBytes());
                chain.write8(i, 3 * lap + i);
            }
            rig.device.complete(chains, new long[SIZE], SIZE);
            assertEquals(SIZE, rig.driver.get(tokens, lengths));
            for (int i = 0; i < SIZE; i++) {
                int j = i - before;
                long token = j < 0 ? -2 : 100 * lap + (j < out ? j : j - out);
                assertEquals(token, tokens[i]);
            }
            for (int i = 0; i < room; i++) {
                byte written = memory.segment().get(ValueLayout.JAVA_BYTE, 64 * i + i);
                assertEquals((byte) (3 * lap + i), written);
            }
        }
        assertNull(rig.device.broken());
        assertNull(rig.driver.broken());
        rig.mapped.mapping().free(memory);
    }

    @ParameterizedTest
    @MethodSource("rings")
    void inOrderABurstWaitsForThoseBeforeIt(Features features) throws Exception {
        assumeTrue(features.has(Feature.IN_ORDER), "without IN_ORDER nothing waits");
        Chain[] chains = start(features);
        for (int lap = 0; lap < 20; lap++) {
            for (int i = 0; i < 4; i++) {
                add(2 * i);
            }
            rig.driver.kick();
            assertEquals(4, rig.device.next(chains, SIZE));
            rig.device.complete(new Chain[] {chains[3], chains[2]}, new long[2], 2);
            assertEquals(0, rig.driver.get(tokens, lengths));
            rig.device.complete(new Chain[] {chains[0], chains[1]}, new long[2], 2);
            assertEquals(4, rig.driver.get(tokens, lengths));
            assertArrayEquals(new long[] {0, 2, 4, 6}, Arrays.copyOf(tokens, 4));
        }
    }

    @ParameterizedTest
    @MethodSource("rings")
    void noneOfABurstIsUsedWhenOneIsNotAcceptable(Features features) throws Exception {
        Chain[] chains = start(features);
        add(0);
        add(2);
        add(4);
        rig.driver.kick();
        assertEquals(3, rig.device.next(chains, SIZE));
        assertThrows(
                IllegalArgumentException.class,
                () -> rig.device.complete(chains, new long[] {8, 9}, 2));
        assertEquals(0, rig.driver.get(tokens, lengths));
        assumeTrue(!features.has(Feature.IN_ORDER), "in order, the others wait for the lost one");
        rig.device.complete(chains[2], 8);
        assertEquals(1, rig.driver.get(tokens, lengths));
        assertEquals(4, tokens[0]);
    }

    @ParameterizedTest
    @MethodSource("rings")
    void whatIsNotAcceptableEndsABurst(Features features) throws Exception {
        Chain[] chains = start(features);
        add(0);
        assertTrue(rig.driver.add(list.clear().inMapped(8, 8), 2));
        add(4);
        rig.driver.kick();
        assertEquals(1, rig.device.next(chains, SIZE));
        assertEquals(
                "queue 0: 8 bytes at 0x8 are not shared by the driver for writing",
                rig.device.broken());
        assertEquals(0, rig.device.next(Arrays.copyOfRange(chains, 1, SIZE), 2));
    }
}
