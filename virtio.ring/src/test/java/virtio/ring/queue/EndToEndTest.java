package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;

/** The driver's end against the device's end, in one thread. */
@Tag("unchecked")
class EndToEndTest {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;

    static Stream<Arguments> everyWay() {
        List<Arguments> ways = new ArrayList<>();
        for (String mapping : Mapped.KINDS) {
            for (Features features : rings()) {
                for (int size : new int[] {1, 2, 256, 32768}) {
                    ways.add(Arguments.of(mapping, size, features));
                }
                if (features.has(Feature.RING_PACKED)) {
                    ways.add(Arguments.of(mapping, 5, features));
                    ways.add(Arguments.of(mapping, 32767, features));
                }
            }
        }
        return ways.stream();
    }

    /** What can be negotiated about the ring. */
    static List<Features> rings() {
        Features split = Features.of(Feature.VERSION_1, Feature.RING_RESET);
        List<Features> rings = new ArrayList<>();
        for (Features layout : List.of(split, split.with(Feature.RING_PACKED))) {
            for (Features base : List.of(layout, layout.with(Feature.IN_ORDER))) {
                rings.add(base);
                rings.add(base.with(Feature.EVENT_IDX));
                rings.add(base.with(Feature.INDIRECT_DESC));
                rings.add(base.with(Feature.INDIRECT_DESC, Feature.EVENT_IDX));
            }
        }
        return rings;
    }

    static Rig rig(String mapping, Features features) {
        return new Rig(Mapped.of(mapping), features);
    }

    /**
     * Buffers of one to four elements, completed out of order, until the indices have wrapped
     * several times; every byte is checked at both ends.
     */
    @ParameterizedTest(name = "{0}, size {1}, features {2}")
    @MethodSource("everyWay")
    @Tag("DRV-PACKED-002")
    @Tag("DRV-PACKED-003")
    @Tag("DRV-PACKED-008")
    @Tag("DRV-PACKED-010")
    @Tag("DEV-PACKED-001")
    @Tag("DEV-PACKED-004")
    @Tag("DEV-PACKED-005")
    @Tag("DEV-PACKED-007")
    @Tag("DRV-SPLIT-002")
    @Tag("DRV-SPLIT-011")
    @Tag("DRV-SPLIT-017")
    @Tag("DEV-SPLIT-001")
    @Tag("DEV-SPLIT-003")
    @Tag("DEV-SPLIT-013")
    @Tag("DEV-SPLIT-014")
    void contentsPassBothWays(String mapping, int size, Features features) throws Exception {
        Random random = new Random(size);
        int inFlight = Math.min(size, 64);
        // Indices wrap once at least, on the mapping that is the fastest.
        int total = mapping.equals("identity") ? 70_000 : 2_000;
        int rounds = total / inFlight + 2;
        try (Arena arena = Arena.ofShared();
                Rig rig = rig(mapping, features).start(size)) {
            int ring = rig.mapped.live().getAsInt();
            MemorySegment memory = rig.mapped.buffers(arena, inFlight * 64L);
            int lent = rig.mapped.live().getAsInt() - ring;
            ScatterList list = new ScatterList(4);
            Deque<Integer> slots = new ArrayDeque<>();
            for (int slot = 0; slot < inFlight; slot++) {
                slots.add(slot);
            }
            List<Chain> spare = new ArrayList<>();
            List<Chain> open = new ArrayList<>();
            for (int i = 0; i < inFlight; i++) {
                spare.add(rig.device.newChain());
            }
            long[] tokens = new long[5];
            int[] lengths = new int[5];
            for (int round = 0; round < rounds; round++) {
                while (!slots.isEmpty()) {
                    int slot = slots.peek();
                    long at = slot * 64L;
                    memory.set(LONG, at, slot);
                    memory.set(LONG, at + 8, ~slot);
                    memory.asSlice(at + 16, 16).fill((byte) 0x55);
                    list.clear();
                    int kind = rig.driver.maxElements() < 4 ? 0 : random.nextInt(3);
                    switch (kind) {
                        case 0 -> list.out(memory, at, 8);
                        case 1 -> list.in(memory, at + 16, 8);
                        default ->
                                list.out(memory, at, 8)
                                        .out(memory, at + 8, 8)
                                        .in(memory, at + 16, 3)
                                        .in(memory, at + 19, 13);
                    }
                    if (!rig.driver.add(list, slot * 4L + kind)) {
                        break;
                    }
                    slots.remove();
                }
                rig.driver.kick();
                while (!spare.isEmpty() && rig.device.next(spare.getLast())) {
                    open.add(spare.removeLast());
                }
                while (!open.isEmpty()) {
                    Chain chain = open.remove(random.nextInt(open.size()));
                    long slot = 1;
                    if (chain.readableBytes() > 0) {
                        slot = chain.read64(0);
                    }
                    if (chain.readableBytes() == 16) {
                        assertEquals(~slot, chain.read64(8));
                    }
                    if (chain.writableBytes() == 8) {
                        chain.write8(0, 1);
                    } else if (chain.writableBytes() == 16) {
                        chain.write8(0, (int) slot);
                        chain.write8(3, (int) slot + 1);
                        chain.write8(4, 9);
                    }
                    rig.device.complete(
                            chain,
                            switch ((int) chain.writableBytes()) {
                                case 0 -> 0;
                                case 8 -> 1;
                                default -> 4;
                            });
                    spare.add(chain);
                }
                rig.device.notifyDriver();
                for (int n; (n = rig.driver.get(tokens, lengths)) > 0; ) {
                    for (int i = 0; i < n; i++) {
                        int slot = (int) (tokens[i] >> 2);
                        int kind = (int) (tokens[i] & 3);
                        long at = slot * 64L;
                        assertEquals(kind == 0 ? 0 : kind == 1 ? 1 : 4, lengths[i]);
                        if (kind == 1) {
                            assertEquals(1, memory.get(ValueLayout.JAVA_BYTE, at + 16));
                        } else if (kind == 2) {
                            assertEquals((byte) slot, memory.get(ValueLayout.JAVA_BYTE, at + 16));
                            assertEquals(
                                    (byte) (slot + 1), memory.get(ValueLayout.JAVA_BYTE, at + 19));
                        }
                        slots.add(slot);
                    }
                }
                assertEquals(inFlight, slots.size());
                assertEquals(size, rig.driver.free());
            }
            assertNull(rig.driver.broken());
            assertNull(rig.device.broken());
            assertEquals(Virtqueue.NONE, rig.driver.get());
            // A ring of 5 takes fewer than 5 buffers of more than one element.
            assertTrue(rig.driver.snapshot().added() > (size == 5 ? total / 4 : total));
            assertEquals(rig.driver.snapshot().added(), rig.driver.snapshot().used());
            assertFalse(rig.driver.kickPrepare());
            rig.driver.close();
            assertTrue(ring > 0);
            assertEquals(lent, rig.mapped.live().getAsInt());
        }
    }
}
