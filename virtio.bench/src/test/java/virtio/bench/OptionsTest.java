package virtio.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.util.List;

class OptionsTest {
    private static Options options(String... args) {
        return new Options(BlkBench.DEFAULTS, args);
    }

    @Test
    void defaultsHoldUntilAnOptionSaysOtherwise() {
        Options options = options("--iodepth=4", "--json");
        assertEquals(List.of(4), options.numbers("iodepth", 256));
        assertEquals(2, options.number("runtime", 10));
        assertEquals(List.of("poll", "interrupt"), options.words("mode", "poll", "interrupt"));
        assertTrue(options.json());
    }

    @Test
    void whatDoesNotFitIsNamedWithItsLimit() {
        for (String[] wrong :
                new String[][] {
                    {"--iodepth=0", "limits are 1 and 256"},
                    {"--iodepth=1,", "limits are 1 and 256"},
                    {"--iodepth=many", "--iodepth=many"},
                    {"--depth=1", "no option --depth=1"},
                    {"--iodepth", "no option --iodepth"},
                    {"32", "no option 32"},
                }) {
            IllegalArgumentException e =
                    assertThrows(
                            IllegalArgumentException.class,
                            () -> options(wrong[0]).numbers("iodepth", 256));
            assertTrue(e.getMessage().contains(wrong[1]), e.getMessage());
        }
        IllegalArgumentException mode =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> options("--mode=event").words("mode", "poll", "interrupt"));
        assertEquals("--mode=event, known are poll, interrupt", mode.getMessage());
    }

    @Test
    void percentilesAreValuesThatOccurred() {
        Series series = new Series();
        for (int i = 100; i > 0; i--) {
            series.add(i);
        }
        assertEquals(1, series.min());
        assertEquals(50, series.median());
        assertEquals(99, series.percentile(99));
        assertEquals(100, series.max());
    }
}
