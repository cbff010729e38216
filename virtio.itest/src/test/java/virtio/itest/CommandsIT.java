package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/** The distribution as people start it. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class CommandsIT {
    @TempDir Path folder;

    @Test
    void commandsPrintNothingButTheirOutput() throws Exception {
        Distribution.Outcome outcome =
                Distribution.commands("export ram:1MiB mmio:a; attach mmio:a --name=x; ls --json");
        assertEquals("", outcome.err());
        assertEquals(0, outcome.exit());
        String[] lines = outcome.out().split("\n");
        assertEquals(3, lines.length, outcome.out());
        assertEquals("ram:1MiB exported at mmio:a", lines[0]);
        assertEquals("x attached to mmio:a", lines[1]);
        assertTrue(lines[2].matches("[\\[{].*\"mmio:a\".*[]}]"), lines[2]);
    }

    @Test
    void aFailedCommandEndsTheRestAndSaysWhyOnStderr() throws Exception {
        Distribution.Outcome outcome =
                Distribution.commands("export ram:1MiB mmio:a; attach mmio:b; ls");
        assertNotEquals(0, outcome.exit());
        assertEquals("ram:1MiB exported at mmio:a\n", outcome.out());
        assertTrue(outcome.err().contains("mmio:b does not exist"), outcome.err());
        assertEquals(1, outcome.err().lines().count(), "a sentence, no trace: " + outcome.err());
    }

    @Test
    void aFailedLineOfTheInputEndsNoOther() throws Exception {
        Distribution.Outcome outcome =
                Distribution.run(
                        60,
                        "export ram:1MiB mmio:a; attach mmio:b; ls\n\nattach mmio:a --name=x\n",
                        "-c",
                        "-");
        assertEquals(1, outcome.exit(), outcome.err());
        assertEquals("ram:1MiB exported at mmio:a\nx attached to mmio:a\n", outcome.out());
        assertTrue(outcome.err().contains("mmio:b does not exist"), outcome.err());
        assertEquals(1, outcome.err().lines().count(), outcome.err());
        Distribution.Outcome well = Distribution.run(60, "export ram:1MiB mmio:a\nls", "-c", "-");
        assertEquals(0, well.exit(), well.err());
        assertTrue(well.out().contains("mmio:a"), well.out());
    }

    /** There are no vDPA modules where tests run, or nothing is missing. */
    @Test
    void whatATransportMissesIsSaidForAnyOfItsAddresses() throws Exception {
        Distribution.Outcome outcome = Distribution.commands("why vduse:disk0");
        assertEquals(0, outcome.exit(), outcome.err());
        if (!Files.exists(Path.of("/sys/module/vduse"))) {
            assertTrue(outcome.out().startsWith("vduse: "), outcome.out());
            assertTrue(outcome.out().contains("module vduse"), outcome.out());
        }
    }

    @Test
    void nonsenseFails() throws Exception {
        assertNotEquals(0, Distribution.commands("nonsense").exit());
        assertNotEquals(0, Distribution.commands("export").exit());
        assertNotEquals(0, Distribution.commands("export ram:64MB mmio:a").exit());
        assertEquals(2, Distribution.run(60, "", "nonsense").exit());
    }

    @Test
    void cardsSayWhatWasSet() throws Exception {
        String card = "export loopback:,pairs=2,speed=2500 pci:a; attach pci:a --name=x; ";
        Distribution.Outcome outcome =
                Distribution.commands(
                        card
                                + "hash x --types=UDPV4 --table=0,1,1,0 --unclassified=1;"
                                + "coalesce x --rxframes=32 --rxusecs=100;"
                                + "coalesce x --pair=1 --txframes=8 --txusecs=50; show x");
        assertEquals(0, outcome.exit(), outcome.err());
        for (String line :
                new String[] {
                    "link +up, 2500 Mbit/s, full duplex",
                    "hashes +\\[UDPV4\\], key of 40 bytes, table of 4, unclassified to pair 1",
                    "notified, pair 0 +after 32 frames or 100 us received, at once sent",
                    "notified, pair 1 +after 32 frames or 100 us received, after 8 frames or 50 us"
                            + " sent"
                }) {
            assertTrue(outcome.out().matches("(?s).*\n" + line + "\n.*"), outcome.out());
        }
        Distribution.Outcome refused = Distribution.commands(card + "hash x --types=all --table=2");
        assertNotEquals(0, refused.exit());
        assertTrue(
                refused.err().contains("queue pair 2 in a table, limits are 0 and 1"),
                refused.err());
    }

    @Test
    void copyTakesAFileToADiskAndBack() throws Exception {
        Path from = folder.resolve("from");
        Path to = folder.resolve("to");
        byte[] content = new byte[2 << 20];
        new Random(11).nextBytes(content);
        Files.write(from, content);
        Distribution.Outcome outcome =
                Distribution.commands(
                        "export ram:2MiB mmio:a; attach mmio:a --name=x; copy file:%s x; copy x file:%s"
                                .formatted(from, to));
        assertEquals(0, outcome.exit(), outcome.err());
        assertEquals(-1, Files.mismatch(from, to));
    }

    @Test
    void theShellStartsWithADisk() throws Exception {
        Process shell = Distribution.start();
        StringBuffer said = new StringBuffer();
        Thread.ofVirtual()
                .start(() -> shell.inputReader().lines().forEach(l -> said.append(l).append('\n')));
        try (Writer keyboard = shell.outputWriter()) {
            // Typed again, because the first may come before the commands are there.
            Wait.until(
                    "the disk to be active",
                    () -> {
                        keyboard.write("virtio:show blk0\n");
                        keyboard.flush();
                        Thread.sleep(200);
                        return said.indexOf("ACTIVE") >= 0;
                    });
            keyboard.write("exit\n");
            keyboard.flush();
            assertTrue(shell.waitFor(20, TimeUnit.SECONDS), said::toString);
            assertEquals(0, shell.exitValue(), said::toString);
        } finally {
            shell.destroyForcibly();
        }
        assertTrue(said.indexOf("mmio:") >= 0, said::toString);
    }

    @Test
    void theDemoLosesNothing() throws Exception {
        Distribution.Outcome outcome = Distribution.run(300, "", "demo");
        assertEquals(0, outcome.exit(), outcome.err());
        assertTrue(outcome.out().contains("none lost"), outcome.out());
    }
}
