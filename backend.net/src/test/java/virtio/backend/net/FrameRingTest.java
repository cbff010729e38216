package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.util.Random;

/** Frames on the way to a receive queue come out as they went in, around the end as well. */
class FrameRingTest {
    private final FrameRing ring = new FrameRing();
    private final Frame frame = new Frame();

    private boolean put(int length, int mark) {
        frame.length = length;
        frame.set32(0, mark);
        frame.set8(length - 1, mark);
        return ring.put(frame, 0);
    }

    private void take(int length, int mark) {
        assertEquals(length, ring.nextLength());
        long at = ring.next() + Frame.HEADER;
        assertEquals(
                mark,
                Integer.reverseBytes(
                        ring.memory().get(java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED, at)));
        if (length > 4) {
            assertEquals(
                    (byte) mark,
                    ring.memory().get(java.lang.foreign.ValueLayout.JAVA_BYTE, at + length - 1));
        }
        ring.remove();
    }

    @Test
    void framesOfEverySizeKeepTheirOrder() {
        Random random = new Random(1);
        int[] lengths = new int[20_000];
        int in = 0;
        int out = 0;
        while (out < lengths.length) {
            while (in < lengths.length) {
                int length = random.nextInt(10) == 0 ? 60 + random.nextInt(65_000) : 60;
                if (!put(length, in)) {
                    break;
                }
                lengths[in++] = length;
            }
            assertTrue(in > out, "an empty ring takes every frame");
            for (int some = 1 + random.nextInt(in - out); some > 0; some--) {
                take(lengths[out], out);
                out++;
            }
        }
        assertEquals(-1, ring.nextLength());
    }

    @Test
    void aFullRingSaysSoAndKeepsWhatItHas() {
        int in = 0;
        while (put(1514, in)) {
            in++;
        }
        assertTrue(in > 500, "room for " + in);
        assertFalse(put(1514, in));
        for (int i = 0; i < in; i++) {
            take(1514, i);
        }
        assertEquals(-1, ring.nextLength());
        assertTrue(put(65_553, 7));
        ring.clear();
        assertEquals(-1, ring.nextLength());
    }
}
