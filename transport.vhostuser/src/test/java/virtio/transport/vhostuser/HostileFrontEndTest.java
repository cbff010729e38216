package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import static virtio.transport.vhostuser.RawFrontEnd.addr;
import static virtio.transport.vhostuser.RawFrontEnd.inflight;
import static virtio.transport.vhostuser.RawFrontEnd.region;
import static virtio.transport.vhostuser.RawFrontEnd.table;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.map.CoherentMemory;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.SharedMemory;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** The back-end against front-ends that break the protocol. */
class HostileFrontEndTest {
    /** Whether the calls of a file return instead of waiting: ioctl(2) with 0 or 1. */
    private static final int FIONBIO = 0x5421;

    private static final long ACKNOWLEDGED = 1L << VhostUser.PROTOCOL_F_REPLY_ACK;
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

    /** What a hostile front-end does, with memory of 65536 bytes, a counter and an odd file. */
    private interface Deed {
        void run(RawFrontEnd to, SharedMemory memory, EventFd counter, FileDescriptor file)
                throws IOException;
    }

    private static Arguments deed(String sentence, Deed deed) {
        return Arguments.of(sentence, deed);
    }

    static Stream<Arguments> deeds() {
        return Stream.of(
                deed("request 99 is not known", (to, m, c, f) -> to.send(99, null)),
                deed(
                        "payload of 4097 bytes, limit is 4096",
                        (to, m, c, f) -> to.bytes(VhostUser.SET_FEATURES, 1, 4097)),
                deed(
                        "payload of 4294967295 bytes",
                        (to, m, c, f) -> to.bytes(VhostUser.SET_FEATURES, 1, -1)),
                deed("protocol version 2", (to, m, c, f) -> to.bytes(VhostUser.GET_FEATURES, 2, 0)),
                deed(
                        "SET_FEATURES with a payload of 4 bytes, 8 are due",
                        (to, m, c, f) -> to.send(VhostUser.SET_FEATURES, Message.payload(4))),
                deed(
                        "SET_PROTOCOL_FEATURES 0x80000",
                        (to, m, c, f) ->
                                to.send(VhostUser.SET_PROTOCOL_FEATURES, Message.u64(1 << 19))),
                deed(
                        "SET_STATUS 0x100",
                        (to, m, c, f) -> to.send(VhostUser.SET_STATUS, Message.u64(256))),
                deed(
                        "SET_VRING_NUM of queue 2, there are 2",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_NUM, Message.state(2, 16))),
                deed(
                        "of queue 4294967295",
                        (to, m, c, f) -> to.send(VhostUser.GET_VRING_BASE, Message.state(-1, 0))),
                deed(
                        "queue 0 with 0 descriptors, limit is 256",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_NUM, Message.state(0, 0))),
                deed(
                        "queue 0 with 4294967295 descriptors",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_NUM, Message.state(0, -1))),
                deed(
                        "SET_VRING_KICK with 0 descriptors, 1 are due",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_KICK, Message.u64(0))),
                deed(
                        "SET_VRING_KICK with 2 descriptors",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_VRING_KICK,
                                        Message.u64(0),
                                        c.file(),
                                        c.file())),
                deed(
                        "SET_VRING_CALL with 1 descriptors, 0 are due",
                        (to, m, c, f) ->
                                to.send(VhostUser.SET_VRING_CALL, Message.u64(256), c.file())),
                deed(
                        "SET_VRING_KICK with a descriptor of",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_KICK, Message.u64(0), f)),
                deed(
                        "SET_VRING_ERR of queue 200",
                        (to, m, c, f) ->
                                to.send(VhostUser.SET_VRING_ERR, Message.u64(200), c.file())),
                deed(
                        "SET_BACKEND_REQ_FD with a descriptor of",
                        (to, m, c, f) -> to.send(VhostUser.SET_BACKEND_REQ_FD, null, f)),
                deed(
                        "user address 0x10000 is in no region",
                        (to, m, c, f) -> to.send(VhostUser.SET_VRING_ADDR, addr(0, 0x10000))),
                deed(
                        "user address 0x20000 is in no region",
                        (to, m, c, f) -> {
                            to.share(m);
                            to.send(VhostUser.SET_VRING_ADDR, addr(0, 0x20000));
                        }),
                deed(
                        "SET_MEM_TABLE with 9 regions",
                        (to, m, c, f) -> to.send(VhostUser.SET_MEM_TABLE, table(9, new long[36]))),
                deed(
                        "SET_MEM_TABLE with -1 regions",
                        (to, m, c, f) -> to.send(VhostUser.SET_MEM_TABLE, Message.payload(4))),
                deed(
                        "SET_MEM_TABLE with a payload of 40 bytes, 72 are due",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_MEM_TABLE,
                                        table(2, 0, 4096, 0, 0),
                                        m.file(),
                                        m.file())),
                deed(
                        "SET_MEM_TABLE with 1 descriptors, 2 are due",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_MEM_TABLE,
                                        table(2, 0, 4096, 0, 0, 8192, 4096, 8192, 0),
                                        m.file())),
                deed(
                        "overlaps",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_MEM_TABLE,
                                        table(2, 0, 4096, 0, 0, 4095, 4096, 8192, 0),
                                        m.file(),
                                        m.file())),
                deed(
                        "its file has 0x10000",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.ADD_MEM_REG,
                                        region(0, 65536, 0, 4096),
                                        m.file())),
                deed(
                        "its file has 0x0",
                        (to, m, c, f) ->
                                to.send(VhostUser.ADD_MEM_REG, region(0, 4096, 0, 0), c.file())),
                deed(
                        "or no bytes",
                        (to, m, c, f) ->
                                to.send(VhostUser.ADD_MEM_REG, region(0, 0, 0, 0), m.file())),
                deed(
                        "its end is no address",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.ADD_MEM_REG,
                                        region(Long.MAX_VALUE, 4096, 0, 0),
                                        m.file())),
                deed(
                        "may be that large",
                        (to, m, c, f) ->
                                to.send(VhostUser.ADD_MEM_REG, region(0, 1, -1, 0), m.file())),
                deed(
                        "ADD_MEM_REG with 0 descriptors",
                        (to, m, c, f) -> to.send(VhostUser.ADD_MEM_REG, region(0, 4096, 0, 0))),
                deed(
                        "overlaps",
                        (to, m, c, f) -> {
                            to.share(m);
                            to.send(
                                    VhostUser.ADD_MEM_REG,
                                    region(0x90000, 4096, 0x10800, 0),
                                    m.file());
                        }),
                deed(
                        "no region of 0x1000 bytes at guest address 0x10000",
                        (to, m, c, f) -> {
                            to.share(m);
                            to.send(VhostUser.REM_MEM_REG, region(0x10000, 4096, 0x10000, 0));
                        }),
                deed(
                        "GET_INFLIGHT_FD for 0 queues",
                        (to, m, c, f) -> to.send(VhostUser.GET_INFLIGHT_FD, inflight(0, 0, 0, 16))),
                deed(
                        "SET_INFLIGHT_FD of 100 bytes",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_INFLIGHT_FD,
                                        inflight(100, 0, 2, 16),
                                        m.file())),
                deed(
                        "its file has 65536",
                        (to, m, c, f) ->
                                to.send(
                                        VhostUser.SET_INFLIGHT_FD,
                                        inflight(1 << 20, 0, 2, 16),
                                        m.file())),
                deed(
                        "5 of 12 bytes",
                        (to, m, c, f) -> {
                            try (Arena arena = Arena.ofConfined()) {
                                to.raw.send(arena.allocate(5), 1000);
                            }
                            to.close();
                        }),
                deed(
                        "SET_FEATURES without its payload of 8 bytes",
                        (to, m, c, f) -> {
                            to.bytes(VhostUser.SET_FEATURES, 1, 8);
                            to.close();
                        }));
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("deeds")
    void isDroppedWithASentenceAndTheNextIsServed(String sentence, Deed deed) throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd counter = EventFd.create();
                FileDescriptor file = FileDescriptor.open(folder, FileDescriptor.O_RDONLY);
                RawFrontEnd hostile = new RawFrontEnd(socket)) {
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
            deed.run(hostile, memory, counter, file);
            logged.await(sentence);
            if (hostile.raw.file().isOpen()) {
                hostile.awaitEnd();
            }
        }
        theNextIsServed();
    }

    private VhostUserTransport open() throws IOException {
        return new VhostUserTransport(
                new VhostUserProvider.Device(
                        "vhost-user:" + socket, socket, 0, 1 << 20, 4096, 10_000));
    }

    private void theNextIsServed() throws Exception {
        try (TinyDisk disk = new TinyDisk(open())) {
            disk.write(1, MemorySegment.ofArray(new byte[512]));
        }
    }

    @Test
    void isToldSoBeforeWhereItWaitsForAnAnswer() throws Exception {
        try (RawFrontEnd hostile = new RawFrontEnd(socket)) {
            hostile.send(VhostUser.SET_PROTOCOL_FEATURES, Message.u64(ACKNOWLEDGED));
            hostile.connection.send(
                    VhostUser.SET_VRING_NUM, VhostUser.NEED_REPLY, Message.state(0, 1 << 20), 1000);
            try (Message refused = hostile.receive()) {
                assertNotEquals(0, refused.u64());
            }
            hostile.awaitEnd();
        }
    }

    @Test
    void leavesWithRequestsInFlightAndItsRingsStop() throws Exception {
        for (int i = 0; i < 3; i++) {
            try (TinyDisk disk = new TinyDisk(open())) {
                disk.write(0, MemorySegment.ofArray(new byte[512]));
                long data = disk.ops.alloc(disk.transport.mapToken(0), 4096).mapHandle();
                synchronized (device.gate) {
                    disk.submit(TinyDisk.WRITE, 0, data, 512);
                    disk.transport.close();
                }
                disk.ops.free(disk.transport.mapToken(0), new CoherentMemory(null, data));
            }
            Peers.await("the rings to stop", () -> device.running() == 0);
        }
        theNextIsServed();
    }

    @Test
    void memoryThatIsCutOffUnderARunningRingEndsNothingElse() throws Exception {
        Path path = folder.resolve("memory");
        try (RandomAccessFile cut = new RandomAccessFile(path.toFile(), "rw");
                SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                RawFrontEnd hostile = new RawFrontEnd(socket)) {
            cut.setLength(4096);
            hostile.startRing(memory.file(), kick);
            try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
                hostile.send(VhostUser.ADD_MEM_REG, region(0x90000, 4096, 0x90000, 0), file);
            }
            Peers.await("the ring to run", () -> device.running() == 1);
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
            cut.setLength(0);
            // Its header here, its data in what was cut off.
            available(memory.segment(), 0x90000);
            kick.signal();
            logged.await("served no more");
        }
        Peers.await("the rings to stop", () -> device.running() == 0);
        theNextIsServed();
    }

    @Test
    void aRingThatIsCutOffBeforeItStartsEndsNothingElse() throws Exception {
        Path path = folder.resolve("memory");
        try (RandomAccessFile cut = new RandomAccessFile(path.toFile(), "rw");
                EventFd kick = EventFd.create();
                RawFrontEnd hostile = new RawFrontEnd(socket)) {
            cut.setLength(65536);
            try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
                hostile.prepareRing(file, kick);
            }
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
            cut.setLength(0);
            kick.signal();
            logged.await("its front-end has cut off the memory of the ring");
            // The conversation goes on.
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
        }
        theNextIsServed();
    }

    @Test
    void aSessionThatFailsInWhateverWayEndsAlone() throws Exception {
        device.error = new InternalError("a fault in a memory access, said a moment later");
        try (RawFrontEnd hostile = new RawFrontEnd(socket)) {
            hostile.send(VhostUser.SET_FEATURES, Message.u64(1L << Feature.VERSION_1));
            logged.await("the front-end is dropped");
            hostile.awaitEnd();
        }
        device.error = null;
        theNextIsServed();
    }

    /** A counter that holds up whoever adds to it, until somebody takes what it has. */
    private static EventFd full() throws IOException {
        EventFd full = EventFd.create();
        try (Arena arena = Arena.ofConfined()) {
            full.file().write(arena.allocateFrom(ValueLayout.JAVA_LONG, -2));
            full.file().ioctl(FIONBIO, arena.allocateFrom(ValueLayout.JAVA_INT, 0));
        }
        return full;
    }

    /** Its queue's thread is in an interrupt, and the session waits for that thread. */
    @Test
    void anInterruptThatIsHeldUpHoldsUpNoWithdrawal() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                EventFd full = full();
                RawFrontEnd hostile = new RawFrontEnd(socket)) {
            try {
                hostile.send(VhostUser.SET_VRING_CALL, Message.u64(0), full.file());
                available(memory.segment(), 0x11000);
                hostile.startRing(memory.file(), kick);
                Peers.await("a used buffer", () -> used(memory.segment()) == 1);
                hostile.send(VhostUser.GET_VRING_BASE, Message.state(0, 0));
                Thread session = thread("virtio-vhost-user:" + socket);
                Peers.await(
                        "the session to wait for the queue",
                        () -> session.getState() == Thread.State.BLOCKED);
                Peers.join(Thread.ofPlatform().start(export::close));
            } finally {
                full.drain();
            }
        }
    }

    private static Thread thread(String name) {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> thread.getName().equals(name))
                .findFirst()
                .orElseThrow();
    }

    @Test
    void aFullErrorCounterThatBlocksHoldsUpNobody() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 65536);
                EventFd kick = EventFd.create();
                EventFd full = full();
                RawFrontEnd hostile = new RawFrontEnd(socket)) {
            hostile.send(VhostUser.SET_VRING_ERR, Message.u64(0), full.file());
            hostile.prepareRing(memory.file(), kick);
            hostile.send(VhostUser.SET_VRING_NUM, Message.state(0, 3)); // no power of two
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
            kick.signal();
            logged.await("broken");
            hostile.send(VhostUser.GET_FEATURES, null);
            hostile.receive().close();
        }
        theNextIsServed();
    }

    /** Makes a disk write available whose data is there. */
    private static void available(MemorySegment ring, long data) {
        ring.set(ValueLayout.JAVA_INT, 4096, 1);
        descriptor(ring, 0, 0x11000, 16, 1);
        descriptor(ring, 1, data, 512, 1);
        descriptor(ring, 2, 0x11010, 1, 2);
        ring.set(ValueLayout.JAVA_SHORT, 256 + 4, (short) 0);
        VarHandle.fullFence();
        ring.set(ValueLayout.JAVA_SHORT, 256 + 2, (short) 1);
        VarHandle.fullFence();
    }

    private static int used(MemorySegment ring) {
        VarHandle.fullFence();
        return ring.get(ValueLayout.JAVA_SHORT, 1024 + 2);
    }

    private static void descriptor(
            MemorySegment ring, int index, long address, int length, int flags) {
        ring.set(ValueLayout.JAVA_LONG, 16L * index, address);
        ring.set(ValueLayout.JAVA_INT, 16L * index + 8, length);
        ring.set(ValueLayout.JAVA_SHORT, 16L * index + 12, (short) flags);
        ring.set(ValueLayout.JAVA_SHORT, 16L * index + 14, (short) (index + 1));
    }
}
