package virtio.bench;

import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.map.DeviceMapping;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.util.Arrays;

/** The platform's own ends of rings, and the loops that use them as those of ring_twin.c do. */
final class RingEnds {
    private static final int BUFFER_BYTES = 64;

    private RingEnds() {}

    /** A driver's end, of a ring in the memory of its own token. */
    static DriverEnd driver(RingWay way) throws VirtioException {
        return driver(way, new IdentityMapOps(), IdentityMapOps.token(1 << 20, 1 << 20));
    }

    static DriverEnd driver(RingWay way, MapOps ops, MapToken token) throws VirtioException {
        // With a callback the driver asks for interrupts, without one it polls.
        QueueRequest.Callback callback = way.event() ? queue -> {} : null;
        return DriverEnd.create(
                0,
                new QueueRequest("ring", RingWay.SIZE, callback),
                RingWay.SIZE,
                way.features(),
                new DeviceMapping(ops, token),
                null,
                (queue, reason) -> {
                    throw new IllegalStateException(reason);
                });
    }

    /** A fresh ring as the platform's own driver's end has it: what the device writes apart. */
    static QueueLayout memory(RingWay way) {
        long at = Arena.global().allocate(3 * 4096, 4096).address();
        return new QueueLayout(RingWay.SIZE, at, at + 4096, at + 4096 + (way.packed() ? 128 : 640));
    }

    static DeviceEnd device(RingWay way, QueueLayout layout) throws VirtioException {
        return DeviceEnd.start(0, layout, way.features(), new Region(4096, 1L << 47), new Nobody());
    }

    /** The driver's loop, in a thread of its own. */
    static final class Driving {
        private final DriverEnd driver;
        private final int batch;
        private final boolean event;
        private final boolean burst;
        private final ScatterList list = new ScatterList(1);
        private final Burst added;
        private final long[] tokens;
        private final int[] lengths;

        Driving(RingWay way, DriverEnd driver, int batch, long buffer) {
            this.driver = driver;
            this.batch = batch;
            event = way.event();
            burst = way.burst();
            list.outMapped(buffer, BUFFER_BYTES);
            added = new Burst(batch, buffer);
            tokens = new long[batch];
            lengths = new int[batch];
        }

        /** Has so many buffers used; how many notifications the device wanted. */
        long run(int buffers) {
            return event ? runChecked(buffers) : runBatches(buffers);
        }

        /** As Linux's ring benchmark: one is got for each added, callbacks when nothing is left. */
        private long runChecked(int buffers) {
            DriverEnd driver = this.driver;
            ScatterList list = this.list;
            int started = 0;
            int completed = 0;
            int kicks = 0;
            while (true) {
                driver.disableCallback();
                boolean busy;
                do {
                    busy = started < buffers && driver.add(list, started);
                    if (busy) {
                        started++;
                        if (driver.kickPrepare()) {
                            kicks++;
                        }
                    }
                    if (driver.get() != Virtqueue.NONE) {
                        if (++completed == buffers) {
                            return kicks;
                        }
                        busy = true;
                    }
                } while (busy);
                int prepared = driver.enableCallbackPrepare();
                while (!driver.poll(prepared)) {
                    check();
                    Thread.onSpinWait();
                }
            }
        }

        private long runBatches(int buffers) {
            DriverEnd driver = this.driver;
            int started = 0;
            int completed = 0;
            int kicks = 0;
            while (completed < buffers) {
                int room = Math.min(batch, buffers - started);
                int added = burst ? this.added.add(driver, started, room) : addAll(started, room);
                if (added > 0 && driver.kickPrepare()) {
                    kicks++;
                }
                started += added;
                int got = burst ? getBursts() : getAll();
                completed += got;
                if (got == 0 && added == 0) {
                    check();
                    Thread.onSpinWait();
                }
            }
            return kicks;
        }

        private int addAll(int token, int count) {
            DriverEnd driver = this.driver;
            ScatterList list = this.list;
            int added = 0;
            while (added < count && driver.add(list, token + added)) {
                added++;
            }
            return added;
        }

        private int getAll() {
            DriverEnd driver = this.driver;
            int got = 0;
            while (driver.get() != Virtqueue.NONE) {
                got++;
            }
            return got;
        }

        private int getBursts() {
            int got = 0;
            for (int count = driver.get(tokens, lengths);
                    count > 0;
                    count = driver.get(tokens, lengths)) {
                got += count;
            }
            return got;
        }

        private void check() {
            if (driver.broken() != null) {
                throw new IllegalStateException(driver.broken());
            }
        }
    }

    /** Buffers that are added many at a time. */
    private static final class Burst {
        private final long[] mapHandles;
        private final int[] lengths;
        private final long[] tokens;

        Burst(int most, long buffer) {
            mapHandles = new long[most];
            lengths = new int[most];
            tokens = new long[most];
            Arrays.fill(mapHandles, buffer);
            Arrays.fill(lengths, BUFFER_BYTES);
        }

        /** Adds so many, with tokens from that one on; how many there was room for. */
        int add(DriverEnd driver, long token, int count) {
            for (int i = 0; i < count; i++) {
                tokens[i] = token + i;
            }
            return driver.addOutMapped(mapHandles, lengths, tokens, count);
        }
    }

    /** The device's loop, in a thread of its own. */
    static final class Serving implements Backend {
        private final DeviceEnd device;
        private final Chain chain;
        private final Chain[] chains;
        private final long[] written;
        private final boolean event;
        private final boolean burst;
        private int done;

        Serving(RingWay way, DeviceEnd device, int batch) {
            this.device = device;
            chain = device.newChain();
            chains = new Chain[batch];
            Arrays.setAll(chains, i -> device.newChain());
            written = new long[batch];
            event = way.event();
            burst = way.burst();
        }

        /** Uses so many buffers. */
        long run(int buffers) {
            done = 0;
            while (done < buffers) {
                if (!turn()) {
                    if (device.broken() != null) {
                        throw new IllegalStateException(device.broken());
                    }
                    Thread.onSpinWait();
                }
            }
            return done;
        }

        /** Uses what is available; false when nothing is. */
        boolean turn() {
            return burst ? bursts() : single();
        }

        private boolean bursts() {
            int count = device.next(chains, chains.length);
            return count != 0 && finishBursts(count);
        }

        // What is done with buffers stands apart from where they are waited for: the compiler
        // inlines what is often called, and counts how often against the calls of the method.

        private boolean finishBursts(int first) {
            DeviceEnd device = this.device;
            int count = first;
            do {
                device.complete(chains, written, count);
                done += count;
                count = device.next(chains, chains.length);
            } while (count != 0);
            device.notifyDriver();
            return true;
        }

        private boolean single() {
            return device.next(chain) && (event ? finishChecked() : finish());
        }

        private boolean finish() {
            DeviceEnd device = this.device;
            Chain chain = this.chain;
            int count = 0;
            do {
                device.complete(chain, 0);
                count++;
            } while (device.next(chain));
            done += count;
            device.notifyDriver();
            return true;
        }

        private boolean finishChecked() {
            device.complete(chain, 0);
            device.notifyDriver();
            done++;
            // Goes on until nothing is left, and asks to be notified of more.
            device.serve(this);
            return true;
        }

        @Override
        public void process(DeviceQueue queue) {
            DeviceEnd device = this.device;
            Chain chain = this.chain;
            int count = 0;
            while (device.next(chain)) {
                device.complete(chain, 0);
                device.notifyDriver();
                count++;
            }
            done += count;
        }

        @Override
        public int deviceType() {
            return 0;
        }

        @Override
        public Features offered() {
            return Features.of();
        }

        @Override
        public int queueCount() {
            return 1;
        }

        @Override
        public int configSize() {
            return 0;
        }

        @Override
        public void readConfig(int offset, byte[] into) {}

        @Override
        public void writeConfig(int offset, byte[] from) {}

        @Override
        public void onConfigChange(Runnable listener) {}

        @Override
        public void accepted(Features features) {}

        @Override
        public void close() {}
    }

    /** Both ends in one thread, batch after batch. */
    static final class Solo {
        private final DriverEnd driver;
        private final Serving serving;
        private final int batch;
        private final boolean burst;
        private final boolean event;
        private final ScatterList list;
        private final Burst added;
        private final long[] tokens;
        private final int[] lengths;

        Solo(RingWay way, DriverEnd driver, int batch, ScatterList list) throws VirtioException {
            this(way, driver, batch, list, null);
        }

        private Solo(RingWay way, DriverEnd driver, int batch, ScatterList list, Burst added)
                throws VirtioException {
            this.driver = driver;
            this.batch = batch;
            this.list = list;
            this.added = added;
            serving = new Serving(way, device(way, driver.layout()), batch);
            burst = way.burst();
            event = way.event();
            tokens = new long[batch];
            lengths = new int[batch];
        }

        /** With premapped buffers. */
        Solo(RingWay way, int batch, long buffer) throws VirtioException {
            this(
                    way,
                    driver(way),
                    batch,
                    new ScatterList(1).outMapped(buffer, BUFFER_BYTES),
                    way.burst() ? new Burst(batch, buffer) : null);
        }

        /** Has so many buffers used, a multiple of the batch. */
        long run(int buffers) {
            DriverEnd driver = this.driver;
            int wanted = 0;
            for (int done = 0; done < buffers; done += batch) {
                if (added != null) {
                    added.add(driver, 0, batch);
                } else {
                    wanted += addEach();
                }
                if (!event && driver.kickPrepare()) {
                    wanted++;
                }
                serving.turn();
                int got = burst ? driver.get(tokens, lengths) : getBatch();
                if (got != batch) {
                    throw new IllegalStateException(
                            "%d used of %d: %s".formatted(got, batch, driver.broken()));
                }
            }
            return wanted;
        }

        private int addEach() {
            DriverEnd driver = this.driver;
            ScatterList list = this.list;
            int wanted = 0;
            for (int i = 0; i < batch; i++) {
                driver.add(list, i);
                if (event && driver.kickPrepare()) {
                    wanted++;
                }
            }
            return wanted;
        }

        private int getBatch() {
            DriverEnd driver = this.driver;
            int got = 0;
            while (got < batch && driver.get() != Virtqueue.NONE) {
                got++;
            }
            return got;
        }
    }

    /** What the driver has shared: one region, in the same address space. */
    private record Region(long start, long end) implements DriverMemory {
        @Override
        public long translate(long mapHandle, long length, boolean write) {
            return mapHandle < start || length > end - mapHandle ? FAULT : mapHandle;
        }

        @Override
        public long reach(long mapHandle, boolean write) {
            return Math.max(0, end - mapHandle);
        }
    }

    /** Both ends look by themselves: nobody needs to be told. */
    private static final class Nobody implements Export {
        @Override
        public String driver() {
            return null;
        }

        @Override
        public void interrupt(int queue) {}

        @Override
        public void configChanged() {}

        @Override
        public void schedule(int queue) {}

        @Override
        public void queueBroken(int queue, String reason) {}

        @Override
        public void close() {}
    }
}
