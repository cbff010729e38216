package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Our vhost-user back-end in a process of its own, driven by front-ends that are not ours. */
@Timeout(value = 150, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ForeignFrontEndIT {
    private static final Path GUEST =
            Path.of("../cnf/guest-vhost-user-blk").toAbsolutePath().normalize();

    @TempDir Path folder;
    private Path socket;
    private Path image;
    private Process server;

    @BeforeEach
    void setUp() {
        socket = folder.resolve("disk.sock");
        image = folder.resolve("disk.img");
    }

    @AfterEach
    void stop() throws Exception {
        if (server != null) {
            server.destroyForcibly().waitFor();
        }
    }

    /** Zeroes, and as little of them on the machine's disk as it can. */
    private String emptyImage(long bytes) throws Exception {
        try (var file = new java.io.RandomAccessFile(image.toFile(), "rw")) {
            file.setLength(bytes);
        }
        return "file:" + image;
    }

    @ParameterizedTest
    @ValueSource(strings = {"ram", "file"})
    void libblkioFindsEveryBlockAsItWroteIt(String kind) throws Exception {
        String tool = Peers.tool("blkio_bench");
        server =
                Distribution.serve(kind.equals("ram") ? "ram:64MiB" : emptyImage(64 << 20), socket);
        String counts = Peers.run(tool, "verify", socket.toString(), "--ops=20000");
        System.out.println("libblkio on " + kind + ": " + counts.strip());
        assertTrue(!counts.matches("(?s).*\":0[,}].*"), "every kind of request: " + counts);
        // The front-end has gone without a word: the next one is served all the same.
        Peers.run(tool, "verify", socket.toString(), "--ops=2000", "--seed=2");
        assertTrue(server.isAlive());
    }

    @Test
    void qemuIoReadsWhatItWrote() throws Exception {
        String tool = Peers.tool("qemu_io_trixie");
        server = Distribution.serve(emptyImage(64 << 20), socket);
        String said =
                Peers.run(
                        tool,
                        "--image-opts",
                        "driver=virtio-blk-vhost-user,path=%s,cache.direct=on".formatted(socket),
                        "-c",
                        "length",
                        "-c",
                        "write -P 0xa5 0 1M",
                        "-c",
                        "flush",
                        "-c",
                        "read -P 0xa5 0 1M",
                        "-c",
                        "discard 64k 64k",
                        "-c",
                        "write -z 0 32k",
                        "-c",
                        "read -P 0 0 32k",
                        "-c",
                        "read -P 0xa5 32k 32k");
        assertTrue(said.contains("64 MiB"), said);
        byte[] stored = Files.readAllBytes(image);
        assertEquals(0, stored[0]);
        assertEquals((byte) 0xa5, stored[32 << 10]);
        assertEquals((byte) 0xa5, stored[(1 << 20) - 1]);
        assertEquals(0, stored[1 << 20]);
    }

    @ParameterizedTest
    @CsvSource({"1, split", "2, split", "2, packed"})
    void aLinuxGuestUsesItAsADisk(int queues, String ring) throws Exception {
        String e2fsck = Peers.tool("e2fsck");
        Peers.tool("guest_kernel");
        server = Distribution.serve(emptyImage(128 << 20) + ",queues=" + queues, socket);
        String said =
                Peers.run(GUEST.toString(), socket.toString(), Integer.toString(queues), ring);
        assertTrue(said.contains("guest: OK"), said);
        assertTrue(said.contains(" %d queues".formatted(queues)), said);
        assertTrue(said.contains("free space discarded"), said);
        Peers.run(e2fsck, "-fn", image.toString());
    }

    @ParameterizedTest
    @ValueSource(strings = {"split", "packed"})
    void aGuestOutlivesAKilledBackEnd(String ring) throws Exception {
        String e2fsck = Peers.tool("e2fsck");
        Peers.tool("guest_kernel");
        String backend = emptyImage(128 << 20) + ",queues=2";
        server = Distribution.serve(backend, socket);
        Process guest =
                new ProcessBuilder(GUEST.toString(), socket.toString(), "2", ring)
                        .redirectErrorStream(true)
                        .start();
        StringBuilder said = new StringBuilder();
        int kills = 0;
        try (BufferedReader lines = guest.inputReader()) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                said.append(line).append('\n');
                if (line.contains("file system made") || line.contains("files written")) {
                    server.destroyForcibly().waitFor();
                    server = Distribution.serve(backend, socket);
                    kills++;
                }
            }
            assertTrue(guest.waitFor(10, TimeUnit.SECONDS));
        } finally {
            guest.destroy();
        }
        assertEquals(0, guest.exitValue(), said.toString());
        assertEquals(2, kills, said.toString());
        Peers.run(e2fsck, "-fn", image.toString());
    }
}
