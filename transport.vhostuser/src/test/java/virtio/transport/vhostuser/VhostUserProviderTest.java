package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.api.transport.Export;
import virtio.api.transport.Transport;
import virtio.linux.Memory;
import virtio.linux.UnixListener;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

class VhostUserProviderTest {
    @TempDir Path folder;

    private static VhostUserProvider provider(String... sockets) {
        return new VhostUserProvider(1 << 20, Memory.PAGE_BYTES, 1000, List.of(sockets));
    }

    @Test
    void listsTheSocketsOfTheFoldersThatWereNamed() throws Exception {
        assertEquals(List.of(), provider().discover());
        Path socket = folder.resolve("a.sock");
        try (UnixListener _ = UnixListener.listen(socket)) {
            Candidate found = provider(folder.toString()).discover().getFirst();
            assertEquals("vhost-user:" + socket, found.address());
            assertNull(found.unavailable());
        }
        Candidate missing = provider(folder + "/none").discover().getFirst();
        assertNotNull(missing.unavailable());
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    -1            | 0       | memoryBytes is -1, limits are 16384 and 1099511627776
                    16383         | 0       | memoryBytes is 16383, limits are 16384 and 1099511627776
                    1048576       | 2097152 | memoryBytes is 1048576, limits are 2097152 and 1099511627776
                    1099511627777 | 0       | memoryBytes is 1099511627777, limits are 16384 and 1099511627776
                    1048576       | -1      | hugePageBytes is -1, it is 0 or a power of two from 4096 to 17179869184
                    1048576       | 2048    | hugePageBytes is 2048, it is 0 or a power of two from 4096 to 17179869184
                    1048576       | 12288   | hugePageBytes is 12288, it is 0 or a power of two from 4096 to 17179869184
                    """)
    void settingsBeyondTheirLimitsAreRefusedByName(long memory, long page, String message) {
        var e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new VhostUserProvider(memory, page, 1000, List.of()));
        assertEquals(message, e.getMessage());
    }

    @Test
    void aBackEndHasSomeTimeToAnswer() {
        var e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new VhostUserProvider(1 << 20, 0, 0, List.of()));
        assertEquals("replyTimeoutMillis is 0, limits are 1 and 2147483647", e.getMessage());
    }

    @Test
    void addressesThatMakeNoSenseAreErrors() {
        for (String address : List.of("", ",type=blk", "/x.sock,type=gpu", "/x\0.sock")) {
            VirtioException e = assertThrows(VirtioException.class, () -> provider().open(address));
            assertTrue(e.getMessage().startsWith("vhost-user:"), e.getMessage());
        }
    }

    @Test
    void anExportOfAnotherTypeThanTheAddressSaysIsAnError() {
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () ->
                                new VhostUserExporter()
                                        .export(folder + "/x.sock,type=net", new RamDevice()));
        assertTrue(e.getMessage().contains("of type blk"), e.getMessage());
    }

    @Test
    void anExporterThatStopsLeavesNothing() throws Exception {
        List<Integer> before = Peers.live();
        VhostUserExporter exporter = new VhostUserExporter();
        Path socket = folder.resolve("driven.sock");
        exporter.export(socket.toString(), new RamDevice());
        Export closed = exporter.export(folder.resolve("closed.sock").toString(), new RamDevice());
        closed.close();
        try (Transport transport = provider().open(socket.toString())) {
            exporter.close();
            assertThrows(VirtioException.class, () -> transport.readConfig(0, new byte[8]));
        }
        exporter.close();
        closed.close();
        assertEquals(before, Peers.live());
        assertFalse(Files.exists(socket));
    }

    @Test
    void memoryThatCannotBeHadIsAnError() throws Exception {
        Path socket = folder.resolve("x.sock");
        List<Integer> before = Peers.live();
        try (VhostUserExport _ =
                new VhostUserExport("x", socket, Features.NONE, new RamDevice(), _ -> {})) {
            // Pages of a size that no machine has.
            VhostUserProvider huge = new VhostUserProvider(1 << 20, 8192, 1000, List.of());
            VirtioException e =
                    assertThrows(VirtioException.class, () -> huge.open(socket.toString()));
            assertTrue(e.getMessage().contains("in pages of 8192 bytes"), e.getMessage());
        }
        assertEquals(before, Peers.live());
    }
}
