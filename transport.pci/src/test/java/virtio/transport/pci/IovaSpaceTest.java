package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

class IovaSpaceTest {
    private static final long MIB = 1 << 20;

    private final IovaSpace space = new IovaSpace();

    @BeforeEach
    void make() {
        // As an Intel IOMMU shows it: all but the window of message-signalled interrupts.
        space.add(0, 0xfedf_ffffL);
        space.add(0xfef0_0000L, 0x7f_ffff_ffffL);
    }

    @Test
    void nothingLowIsHandedOut() {
        assertEquals(2 * MIB, space.take(4096, 4096));
        assertEquals(4 * MIB, space.take(4096, 2 * MIB), "aligned");
        assertEquals(2 * MIB + 4096, space.take(4096, 4096), "what the alignment left");
    }

    @Test
    void whatThePlatformKeepsIsNeverHandedOut() {
        List<long[]> taken = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            long at = space.take(16 * MIB, 2 * MIB);
            assertTrue(at + 16 * MIB <= 0xfee0_0000L || at >= 0xfef0_0000L, Long.toHexString(at));
            for (long[] other : taken) {
                assertTrue(at >= other[0] + 16 * MIB || at + 16 * MIB <= other[0]);
            }
            taken.add(new long[] {at});
        }
    }

    @Test
    void whatIsTooLargeIsRefused() {
        assertEquals(-1, space.take(1L << 40, 4096));
        IovaSpace small = new IovaSpace();
        assertEquals(-1, small.take(4096, 4096));
        small.add(0, 4096);
        assertEquals(-1, small.take(4096, 4096), "all of it is too low");
        small.add(4 * MIB, 4 * MIB + 8191);
        assertEquals(-1, small.take(12288, 4096));
        assertEquals(4 * MIB, small.take(8192, 4096));
        assertEquals(-1, small.take(1, 1));
    }

    @Test
    void apertureBeyondWhatAHandleCanBeIsCut() {
        IovaSpace all = new IovaSpace();
        all.add(0, -1);
        assertEquals("0x200000-0x3fffffffffffffff", all.toString());
        IovaSpace high = new IovaSpace();
        high.add(Long.MIN_VALUE, -1);
        assertEquals("", high.toString());
    }

    @Test
    void whatIsGivenBackIsJoined() {
        String before = space.toString();
        SplittableRandom random = new SplittableRandom(7);
        List<long[]> taken = new ArrayList<>();
        for (int i = 0; i < 2000; i++) {
            if (random.nextBoolean() || taken.isEmpty()) {
                long bytes = 4096L << random.nextInt(10);
                taken.add(new long[] {space.take(bytes, 4096L << random.nextInt(10)), bytes});
            } else {
                long[] one = taken.remove(random.nextInt(taken.size()));
                space.give(one[0], one[1]);
            }
        }
        taken.forEach(one -> space.give(one[0], one[1]));
        assertEquals(before, space.toString());
    }
}
