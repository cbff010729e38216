package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;
import virtio.api.map.MapToken;
import virtio.api.transport.Candidate;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.api.transport.TransportProvider;
import virtio.ring.Core;
import virtio.tck.CopyingMapOps;
import virtio.tck.Misbehaviour;
import virtio.tck.RogueTransport;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.locks.LockSupport;

/** The driver on the real core, with a disk that breaks its promises. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RogueDiskTest {
    private final CopyingMapOps ops = new CopyingMapOps(8 << 20);
    private final Provider provider = new Provider();
    private final Core core = new Core(20_000, 1_000);
    private volatile BlockDevice disk;
    private volatile boolean answers = true;
    private volatile boolean over;
    private Thread device;

    @BeforeEach
    void attach() throws Exception {
        core.rebindTransport(provider, ops);
        core.bindDriver(
                new BlkDriver(
                        d -> {
                            disk = d;
                            return () -> disk = null;
                        }));
        device =
                Thread.ofPlatform()
                        .daemon()
                        .start(
                                () -> {
                                    while (!over) {
                                        provider.serve();
                                        LockSupport.parkNanos(50_000);
                                    }
                                });
        core.bus().attach("rogue:a", "blk0");
    }

    @AfterEach
    void everythingIsGivenBack() throws Exception {
        core.close();
        over = true;
        device.join();
        assertNull(disk);
        assertEquals(0, ops.live());
        assertEquals(List.of(), ops.violations());
    }

    private long serve(int queue, List<MemorySegment> readable, List<MemorySegment> writable) {
        long written = writable.stream().mapToLong(MemorySegment::byteSize).sum();
        int type = readable.getFirst().get(ValueLayout.JAVA_INT_UNALIGNED, BlockRequest.TYPE);
        if (type == BlockRequest.IN) {
            writable.getFirst().fill((byte) 0x77);
        }
        if (answers || type == BlockRequest.GET_ID) {
            writable.getLast().fill((byte) 0);
        }
        return written;
    }

    @ParameterizedTest
    @EnumSource(
            names = {
                "USED_ID_OUT_OF_RANGE",
                "USED_ID_NOT_AVAILABLE",
                "LENGTH_TOO_LONG",
                "INDEX_JUMPS"
            })
    void brokenPromisesBreakTheQueueAndNothingElse(Misbehaviour how) throws Exception {
        provider.misbehave(how);
        try (BlockQueue queue = disk.openQueue(0, 16)) {
            List<CompletableFuture<Void>> futures = new ArrayList<>();
            List<MemorySegment> buffers = new ArrayList<>();
            for (int i = 0; i < 16; i++) {
                buffers.add(MemorySegment.ofArray(new byte[4096]));
                futures.add(disk.read(i * 4096L, buffers.getLast()));
                assertTrue(queue.read(i * 4096L, MemorySegment.ofArray(new byte[512]), i));
            }
            queue.submit();
            for (CompletableFuture<Void> future : futures) {
                future.join();
            }
            for (MemorySegment buffer : buffers) {
                assertEquals(0x77, buffer.get(ValueLayout.JAVA_BYTE, 4095));
            }
            long[] tokens = new long[16];
            int[] results = new int[16];
            for (int left = 16; left > 0; ) {
                int n = queue.await(tokens, results, 10_000);
                assertTrue(n > 0);
                for (int i = 0; i < n; i++) {
                    assertEquals(BlockQueue.OK, results[i]);
                }
                left -= n;
            }
        }
        // Consumers go on a little before the core has noted that they do.
        while (core.bus().devices().getFirst().swaps() == 0) {
            LockSupport.parkNanos(1_000_000);
        }
    }

    @Test
    void statusThatIsNeverWrittenIsAnErrorOfThatRequest() throws Exception {
        answers = false;
        CompletionException e =
                assertThrows(
                        CompletionException.class,
                        () -> disk.read(0, MemorySegment.ofArray(new byte[512])).join());
        assertEquals(
                "blk0: read of 512 bytes at 0 failed: the device reports an I/O error",
                e.getCause().getMessage());
        answers = true;
        disk.flush().join();
        assertEquals(0, core.bus().devices().getFirst().swaps());
    }

    @Test
    void vanishedDeviceIsFoundAgainWithNoRequestLost() throws Exception {
        for (int i = 0; i < 5; i++) {
            List<CompletableFuture<Void>> writes = new ArrayList<>();
            for (int w = 0; w < 300; w++) {
                writes.add(disk.write(0, MemorySegment.ofArray(new byte[512])));
            }
            provider.vanish();
            CompletableFuture.allOf(writes.toArray(CompletableFuture[]::new)).join();
        }
    }

    @Test
    void configurationThatNeverSettlesLeavesTheCapacity() throws Exception {
        provider.misbehave(Misbehaviour.GENERATION_NEVER_SETTLES);
        provider.shrink();
        disk.flush().join();
        assertEquals(1 << 20, disk.capacityBytes());
    }

    /** One device, anew at each opening. */
    private final class Provider implements TransportProvider {
        private Guarded current;

        @Override
        public String name() {
            return "rogue";
        }

        @Override
        public List<Candidate> discover() {
            return List.of();
        }

        @Override
        public synchronized Transport open(String address) {
            byte[] config = new byte[BlockConfig.BYTES];
            config[1] = 8;
            Features offered =
                    Features.of(Feature.VERSION_1, Feature.INDIRECT_DESC, BlockFeature.FLUSH);
            current =
                    new Guarded(
                            new RogueTransport(
                                    ops,
                                    DeviceType.BLOCK,
                                    offered,
                                    1,
                                    64,
                                    config,
                                    RogueDiskTest.this::serve));
            return current;
        }

        private synchronized Guarded current() {
            return current;
        }

        void misbehave(Misbehaviour how) {
            Guarded now = current();
            synchronized (now) {
                now.rogue.misbehave(how);
            }
        }

        void shrink() {
            Guarded now = current();
            synchronized (now) {
                now.rogue.changeConfig(1, 4);
            }
        }

        void vanish() {
            Guarded now = current();
            synchronized (now) {
                now.vanished = true;
                now.rogue.vanish();
            }
        }

        void serve() {
            Guarded now = current();
            if (now == null) {
                return;
            }
            int served;
            synchronized (now) {
                served = now.vanished ? 0 : now.rogue.serve(0);
            }
            if (served > 0) {
                now.rogue.interrupt(0);
            }
        }
    }

    /** Keeps the core's thread and the device's apart. */
    private static final class Guarded implements Transport {
        final RogueTransport rogue;
        boolean vanished;

        Guarded(RogueTransport rogue) {
            this.rogue = rogue;
        }

        @Override
        public synchronized int deviceType() throws VirtioException {
            return rogue.deviceType();
        }

        @Override
        public synchronized Features offered() throws VirtioException {
            return rogue.offered();
        }

        @Override
        public synchronized void accept(Features features) throws VirtioException {
            rogue.accept(features);
        }

        @Override
        public synchronized int status() throws VirtioException {
            return rogue.status();
        }

        @Override
        public synchronized void status(int value) throws VirtioException {
            rogue.status(value);
        }

        @Override
        public synchronized int configGeneration() throws VirtioException {
            return rogue.configGeneration();
        }

        @Override
        public synchronized void readConfig(int offset, byte[] into) throws VirtioException {
            rogue.readConfig(offset, into);
        }

        @Override
        public synchronized void writeConfig(int offset, byte[] from) throws VirtioException {
            rogue.writeConfig(offset, from);
        }

        @Override
        public synchronized int maxQueueSize(int queue) throws VirtioException {
            return rogue.maxQueueSize(queue);
        }

        @Override
        public MapToken mapToken(int queue) {
            return rogue.mapToken(queue);
        }

        @Override
        public synchronized void startQueue(int queue, QueueLayout layout) throws VirtioException {
            rogue.startQueue(queue, layout);
        }

        @Override
        public synchronized boolean stopQueue(int queue) throws VirtioException {
            return rogue.stopQueue(queue);
        }

        @Override
        public void notifyQueue(int queue, int data) {}

        @Override
        public synchronized void listen(Listener listener) {
            rogue.listen(listener);
        }

        @Override
        public synchronized void close() {
            rogue.close();
        }
    }
}
