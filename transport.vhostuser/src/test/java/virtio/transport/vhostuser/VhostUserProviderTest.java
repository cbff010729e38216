package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.linux.Memory;
import virtio.linux.UnixListener;

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
    void memoryThatCannotBeHadIsAnError() throws Exception {
        Path socket = folder.resolve("x.sock");
        List<Integer> before = Peers.live();
        try (VhostUserExport _ = new VhostUserExport("x", socket, new RamDevice())) {
            // Pages of a size that no machine has.
            VhostUserProvider huge = new VhostUserProvider(1 << 20, 8192, 1000, List.of());
            VirtioException e =
                    assertThrows(VirtioException.class, () -> huge.open(socket.toString()));
            assertTrue(e.getMessage().contains("in pages of 8192 bytes"), e.getMessage());
        }
        assertEquals(before, Peers.live());
    }
}
