package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import static virtio.transport.vhostuser.RawFrontEnd.addr;
import static virtio.transport.vhostuser.RawFrontEnd.inflight;
import static virtio.transport.vhostuser.RawFrontEnd.region;
import static virtio.transport.vhostuser.RawFrontEnd.table;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.List;

/** The back-end's rings, told of message by message. */
class BackEndRingTest {
    @TempDir Path folder;
    private Path socket;
    private List<Integer> before;
    private Logged logged;
    private VhostUserExport export;
    private final RamDevice device = new RamDevice();

    @BeforeEach
    void export() throws Exception {
        socket = folder.resolve("x.sock");
        before = Peers.live();
        logged = new Logged();
        export =
                new VhostUserExport("vhost-user:" + socket, socket, Features.NONE, device, _ -> {});
    }

    @AfterEach
    void nothingIsLeft() {
        export.close();
        logged.close();
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    @Test
    void ringsStartByAKickAndStopByGetVringBaseAndObeyEnable() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd driver = new RawFrontEnd(socket)) {
            driver.startRing(memory.file(), kick);
            Peers.await("the first kick", () -> device.running() == 1);
            driver.send(VhostUser.SET_VRING_ENABLE, Message.state(0, 0));
            Peers.await("disabling", () -> device.running() == 0);
            driver.send(VhostUser.SET_VRING_ENABLE, Message.state(0, 1));
            Peers.await("enabling", () -> device.running() == 1);
            driver.send(VhostUser.GET_VRING_BASE, Message.state(0, 0));
            try (Message base = driver.receive()) {
                assertEquals(VhostUser.STATE_BYTES, base.size());
                assertEquals(0, device.running());
            }
            EventFd unheard = EventFd.create();
            driver.send(VhostUser.SET_VRING_KICK, Message.u64(0), unheard.file());
            driver.send(VhostUser.GET_FEATURES, null);
            driver.receive().close();
            assertEquals(0, device.running(), "not kicked again");
            driver.send(VhostUser.SET_VRING_KICK, Message.u64(VhostUser.VRING_NOFD));
            Peers.await("a polled ring to run at once", () -> device.running() == 1);
            unheard.close();
        }
    }

    @Test
    void ringsOfAFrontEndWithoutProtocolFeaturesStartEnabled() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd driver = new RawFrontEnd(socket)) {
            driver.send(VhostUser.SET_FEATURES, Message.u64(1L << Feature.VERSION_1));
            driver.share(memory);
            driver.send(VhostUser.SET_VRING_NUM, Message.state(1, 16));
            driver.send(VhostUser.SET_VRING_ADDR, addr(1, 0x10000));
            driver.send(VhostUser.SET_VRING_BASE, Message.state(1, 0));
            driver.send(VhostUser.SET_VRING_KICK, Message.u64(1), kick.file());
            kick.signal();
            Peers.await("the kick", () -> device.running() == 1);
            assertNotNull(device.layouts.get(1));
        }
    }

    @Test
    void memoryIsExchangedUnderARunningRing() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd driver = new RawFrontEnd(socket)) {
            driver.startRing(memory.file(), kick);
            Peers.await("the ring to run", () -> device.running() == 1);
            driver.send(
                    VhostUser.SET_MEM_TABLE, table(1, 0x50000, 32768, 0x10000, 0), memory.file());
            driver.send(VhostUser.GET_FEATURES, null);
            driver.receive().close();
            assertEquals(1, device.running());
            assertEquals(0x50000, device.layouts.get(0).descriptorArea());
            driver.send(VhostUser.REM_MEM_REG, region(0x50000, 32768, 0x10000, 0));
            driver.send(VhostUser.GET_FEATURES, null);
            driver.receive().close();
            assertEquals(0, device.running());
            logged.await("user address 0x10000 is in no region");
        }
    }

    @Test
    void theInflightRegionIsMadeKeptAndHandedToTheQueue() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd driver = new RawFrontEnd(socket)) {
            driver.send(VhostUser.GET_INFLIGHT_FD, inflight(0, 0, 2, 16));
            long bytes;
            try (Message region = driver.receive()) {
                bytes = region.payload().getLong(0);
                driver.send(
                        VhostUser.SET_INFLIGHT_FD,
                        inflight(bytes, 0, 2, 16),
                        region.fds().getFirst());
            }
            driver.startRing(memory.file(), kick);
            Peers.await("the ring to run", () -> device.running() == 1);
            MemorySegment inflight = device.layouts.get(0).inflight();
            assertEquals(bytes / 2, inflight.byteSize());
            assertFalse(inflight.get(ValueLayout.JAVA_SHORT, 8) == 0, "version");
        }
    }

    /** A part of a huge page can be mapped and not be unmapped, which would be left of each. */
    @Test
    void anInflightRegionOnHugePagesIsGivenBack() throws Exception {
        long hugePageBytes = 2 << 20;
        try (SharedMemory kept = SharedMemory.create("test", hugePageBytes, hugePageBytes);
                SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd driver = new RawFrontEnd(socket)) {
            driver.send(
                    VhostUser.SET_INFLIGHT_FD, inflight(hugePageBytes / 2, 64, 2, 16), kept.file());
            driver.startRing(memory.file(), kick);
            Peers.await("the ring to run", () -> device.running() == 1);
            device.layouts.get(0).inflight().set(ValueLayout.JAVA_BYTE, 40, (byte) 77);
            assertEquals(77, kept.segment().get(ValueLayout.JAVA_BYTE, 64 + 40));
        } catch (LinuxException e) {
            assumeTrue(e.errno() != Errno.ENOMEM, () -> "no huge page is free: " + e.getMessage());
            throw e;
        }
    }
}
