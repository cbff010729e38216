package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.linux.FileDescriptor;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Two network namespaces of the host, joined by our switch. */
@Timeout(value = 90, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class TapTest {
    @TempDir Path folder;
    private final String id = Long.toString(ProcessHandle.current().pid() % 100_000);
    private final String[] spaces = {"virtio-a" + id, "virtio-b" + id};
    private final String[] interfaces = {"vta" + id, "vtb" + id};
    private Rig rig;

    @BeforeEach
    void open() throws Exception {
        assumeTrue(Files.exists(Path.of("/dev/net/tun")), "no /dev/net/tun: load the module tun");
        assumeTrue(run("ip", "netns", "add", spaces[0]) == 0, "no network namespace: not root");
        assertEquals(0, run("ip", "netns", "add", spaces[1]));
        rig = new Rig(folder);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        for (String space : spaces) {
            run("ip", "netns", "del", space);
        }
        if (rig != null) {
            rig.close();
            assertEquals(0, FileDescriptor.live());
        }
    }

    private static int run(String... command) throws Exception {
        Process process = new ProcessBuilder(command).inheritIO().start();
        if (!process.waitFor(40, TimeUnit.SECONDS)) {
            process.destroyForcibly();
            return -1;
        }
        return process.exitValue();
    }

    private int in(int space, String... command) throws Exception {
        String[] all = new String[command.length + 4];
        System.arraycopy(new String[] {"ip", "netns", "exec", spaces[space]}, 0, all, 0, 4);
        System.arraycopy(command, 0, all, 4, command.length);
        return run(all);
    }

    @Test
    void twoNamespacesReachEachOther() throws Exception {
        rig.core
                .bus()
                .export(
                        "switch:lan,tap=%s,tap=%s".formatted(interfaces[0], interfaces[1]),
                        rig.address("mmio"));
        for (int i = 0; i < 2; i++) {
            assertEquals(0, run("ip", "link", "set", interfaces[i], "netns", spaces[i]));
            assertEquals(
                    0,
                    in(
                            i,
                            "ip",
                            "addr",
                            "add",
                            "10.9.8.%d/24".formatted(i + 1),
                            "dev",
                            interfaces[i]));
            assertEquals(0, in(i, "ip", "link", "set", interfaces[i], "up"));
        }
        assumeTrue(run("sh", "-c", "command -v ping > /dev/null") == 0, "no ping: install it");
        assertEquals(0, in(0, "ping", "-q", "-c", "5", "-i", "0.2", "-W", "5", "10.9.8.2"));
        assumeTrue(run("sh", "-c", "command -v iperf3 > /dev/null") == 0, "no iperf3: install it");
        Process server =
                new ProcessBuilder("ip", "netns", "exec", spaces[1], "iperf3", "-s", "-1")
                        .inheritIO()
                        .start();
        try {
            int tries = 0;
            while (in(0, "iperf3", "-c", "10.9.8.2", "-t", "3") != 0) {
                assertTrue(tries++ < 20, "iperf3 through the switch");
                Thread.sleep(500); // It may not listen yet.
            }
        } finally {
            server.destroyForcibly().waitFor();
        }
    }
}
