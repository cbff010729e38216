package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;

/** The file that outlives a server, whenever that one died. */
class InflightFileTest {
    private static final int QUEUES = 2;
    private static final int SIZE = 16;
    private static final long VERSION = 8;
    private static final long FIRST_ENTRY = 32;

    @TempDir private Path folder;

    private InflightFile open(boolean fresh) throws Exception {
        return InflightFile.open(folder.resolve("state"), "disk0", QUEUES, SIZE, fresh);
    }

    private Path path() {
        return folder.resolve("state/vduse-disk0.inflight");
    }

    /** As a queue of an earlier life leaves it. */
    private void leave() throws Exception {
        try (InflightFile file = open(true)) {
            assertFalse(file.found());
            for (int queue = 0; queue < QUEUES; queue++) {
                file.queue(queue).set(ValueLayout.JAVA_SHORT, VERSION, (short) 1);
                file.queue(queue).set(ValueLayout.JAVA_BYTE, FIRST_ENTRY, (byte) (queue + 1));
            }
        }
    }

    @Test
    void whoFollowsFindsWhatWasInFlight() throws Exception {
        leave();
        try (InflightFile file = open(false)) {
            assertTrue(file.found());
            for (int queue = 0; queue < QUEUES; queue++) {
                assertTrue(
                        file.queue(queue).byteSize() >= FIRST_ENTRY * (SIZE + 1), "a packed one");
                assertEquals(1, file.queue(queue).get(ValueLayout.JAVA_SHORT, VERSION));
                assertEquals(queue + 1, file.queue(queue).get(ValueLayout.JAVA_BYTE, FIRST_ENTRY));
            }
        }
    }

    @Test
    void aResetForgetsIt() throws Exception {
        leave();
        try (InflightFile file = open(false)) {
            file.clear();
        }
        try (InflightFile file = open(false)) {
            for (int queue = 0; queue < QUEUES; queue++) {
                assertEquals(0, file.queue(queue).get(ValueLayout.JAVA_SHORT, VERSION));
                assertEquals(0, file.queue(queue).get(ValueLayout.JAVA_BYTE, FIRST_ENTRY));
            }
        }
    }

    @Test
    void aDeviceThatIsMadeAnewHasNothingInFlight() throws Exception {
        leave();
        try (InflightFile file = open(true)) {
            assertFalse(file.found());
            assertEquals(0, file.queue(0).get(ValueLayout.JAVA_SHORT, VERSION));
        }
    }

    /** Its server died while it made the file, or is of a version that had a smaller one. */
    @Test
    void aFileOfAnotherSizeIsReplaced() throws Exception {
        Files.createDirectories(path().getParent());
        for (int bytes : new int[] {0, 100}) {
            Files.write(path(), new byte[bytes]);
            try (InflightFile file = open(false)) {
                assertFalse(file.found(), bytes + " bytes");
                assertEquals(0, file.queue(QUEUES - 1).get(ValueLayout.JAVA_SHORT, VERSION));
            }
        }
    }

    @Test
    void nobodyElseReadsIt() throws Exception {
        open(true).close();
        assertEquals(
                "rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(path())));
    }
}
