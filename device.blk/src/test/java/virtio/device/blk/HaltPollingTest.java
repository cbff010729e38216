package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class HaltPollingTest {
    private static final long SHORT = HaltPolling.LOOK_NANOS / 2;

    private final HaltPolling halt = new HaltPolling();

    @Test
    void looksAfterShortSleepsInARow() {
        assertEquals(HaltPolling.FIRST_PATIENCE, sleepsUntilItLooks());
    }

    @Test
    void slowDiskIsNotLookedFor() {
        for (int i = 0; i < 10 * HaltPolling.FIRST_PATIENCE; i++) {
            halt.slept(i % 2 == 0 ? SHORT : HaltPolling.LOOK_NANOS + 1);
            assertEquals(0, halt.nanos());
        }
    }

    @Test
    void looksInVainBecomeRare() {
        int before = sleepsUntilItLooks();
        for (int i = 0; i < 20; i++) {
            halt.slept(SHORT);
            assertEquals(0, halt.nanos(), "after a look in vain");
            int sleeps = sleepsUntilItLooks();
            assertEquals(Math.min(2 * before, HaltPolling.LAST_PATIENCE), sleeps);
            before = sleeps;
        }
        halt.found();
        halt.slept(SHORT);
        assertEquals(2 * HaltPolling.FIRST_PATIENCE, sleepsUntilItLooks());
    }

    private int sleepsUntilItLooks() {
        for (int sleeps = 0; ; sleeps++) {
            if (halt.nanos() > 0) {
                return sleeps;
            }
            halt.slept(SHORT);
        }
    }
}
