package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.linux.FileDescriptor;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

/** A TAP interface of this host, which somebody deletes. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class TapPortTest {
    private final String name = "vtg" + ProcessHandle.current().pid() % 100_000;

    /** Warnings of this bundle. */
    private final List<String> said = new CopyOnWriteArrayList<>();

    private final Handler handler =
            new Handler() {
                @Override
                public void publish(LogRecord record) {
                    said.add(record.getMessage());
                }

                @Override
                public void flush() {}

                @Override
                public void close() {}
            };

    private static int run(String... command) throws Exception {
        return new ProcessBuilder(command).inheritIO().start().waitFor();
    }

    private Thread thread() {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(t -> t.getName().equals("virtio-tap-" + name))
                .findFirst()
                .orElseThrow();
    }

    @Test
    void anInterfaceThatIsDeletedIsSaidOnceAndLeftAlone() throws Exception {
        int live = FileDescriptor.live();
        Backend card = null;
        try {
            card = new TapProvider().open(name);
        } catch (VirtioException e) {
            assumeTrue(false, e.getMessage());
        }
        Logger logger = Logger.getLogger("virtio.backend.net");
        logger.addHandler(handler);
        try {
            Thread thread = thread();
            // That is no end.
            for (String state : new String[] {"up", "down", "up"}) {
                assertEquals(0, run("ip", "link", "set", name, state));
            }
            assertEquals(List.of(), said);
            assertTrue(thread.isAlive());
            assertEquals(0, run("ip", "link", "del", name));
            assertTrue(thread.join(Duration.ofSeconds(20)), "its thread ends");
            assertEquals(1, said.size(), said.toString());
            assertTrue(said.getFirst().contains("is gone"), said.toString());
        } finally {
            logger.removeHandler(handler);
            card.close();
        }
        assertEquals(live, FileDescriptor.live());
    }
}
