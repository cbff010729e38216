package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ArgumentsTest {
    private static final String PERF = "perf NAME [--rw=randread|read] [--bs=4k] [--json]";

    @Test
    void optionsComeInBothSpellingsAndAnywhere() {
        Arguments a = new Arguments(PERF, "--rw", "read", "blk0", "--bs=8k", "--json");
        assertEquals("blk0", a.get(0));
        assertNull(a.get(1));
        assertEquals("read", a.option("rw", "randread"));
        assertEquals(8192, a.bytes("bs", "4k"));
        assertTrue(a.has("json"));
        assertFalse(a.help());
    }

    @ParameterizedTest
    @CsvSource({
        "'',                '0 arguments, limits are 1 and 1'",
        "blk0 blk1,         '2 arguments, limits are 1 and 1'",
        "blk0 --iodepth=3,  no option --iodepth",
        "blk0 --rw,         --rw needs a value",
    })
    void whatDoesNotFitIsNamedWithTheUsage(String line, String message) {
        String[] args = line.isEmpty() ? new String[0] : line.split(" ");
        var e = assertThrows(IllegalArgumentException.class, () -> new Arguments(PERF, args));
        assertEquals(message + "; usage: " + PERF, e.getMessage());
    }

    @ParameterizedTest
    @CsvSource({"512,512", "4k,4096", "4K,4096", "1m,1048576"})
    void bytesAreWrittenAsFioDoes(String text, int bytes) {
        assertEquals(bytes, new Arguments(PERF, "blk0", "--bs=" + text).bytes("bs", "4k"));
    }

    @ParameterizedTest
    @CsvSource({"0", "-4k", "k", "2048m", "4g"})
    void bytesOutOfRangeAreRefused(String text) {
        Arguments a = new Arguments(PERF, "blk0", "--bs=" + text);
        var e = assertThrows(IllegalArgumentException.class, () -> a.bytes("bs", "4k"));
        assertTrue(e.getMessage().contains(text), e.getMessage());
    }

    @Test
    void whoAsksForHelpGetsAllLinesAndWhoIsWrongTheFirst() {
        String usage = "load NAME [--count=4]\n--swap AND SO ON is for help alone";
        Console console = new Console();
        assertTrue(Arguments.of(console.session, usage, "--help").help());
        assertEquals("usage: " + usage + "\n", console.printed());
        var e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> Arguments.of(console.session, usage, "blk0", "--swap"));
        assertEquals("no option --swap; usage: load NAME [--count=4]", e.getMessage());
    }

    @Test
    void optionalArgumentsMayBeLeftOut() {
        assertNull(new Arguments("why [ADDRESS]").get(0));
        assertTrue(new Arguments("attach ADDRESS", "--help").help());
    }
}
