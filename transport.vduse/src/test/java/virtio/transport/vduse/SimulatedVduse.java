package virtio.transport.vduse;

import virtio.api.Feature;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

/** One VDUSE device in the {@link SimulatedKernel}. */
final class SimulatedVduse {
    /** A range of addresses and what is behind it. */
    record Entry(FileDescriptor file, long offset, long start, long last, int permission) {}

    /** A request, until it is answered. */
    private static final class Message {
        final VduseDevice.Request request;
        boolean answered;
        boolean done;
        long state;

        Message(VduseDevice.Request request) {
            this.request = request;
        }
    }

    private final SimulatedKernel kernel;
    private final String name;
    final int deviceType;
    final long features;
    final SimulatedKernel.Queue[] queues;
    private final byte[] config;
    private final EventFd readable;
    private final Deque<Message> toSend = new ArrayDeque<>();
    private final Map<Integer, Message> sent = new HashMap<>();
    private final TreeMap<Long, Entry> memory = new TreeMap<>();
    private int nextId;
    private boolean onBus;
    private boolean leaving;
    private boolean held;
    private Served served;
    private EventFd configCall;
    private int status;
    private long driverFeatures;
    private boolean broken;

    SimulatedVduse(
            SimulatedKernel kernel,
            String name,
            int deviceType,
            long features,
            int queueCount,
            byte[] config)
            throws LinuxException {
        this.kernel = kernel;
        this.name = name;
        this.deviceType = deviceType;
        this.features = features;
        this.config = config.clone();
        queues = SimulatedKernel.queues(queueCount);
        readable = EventFd.create();
    }

    // What the bus and vhost-vdpa do with it.

    synchronized boolean isOnBus() {
        return onBus && !leaving;
    }

    synchronized void addToBus() throws LinuxException {
        if (onBus) {
            throw new LinuxException("vdpa dev add", name, Errno.EEXIST);
        }
        onBus = true;
    }

    /** Waits for who holds the device, as vhost_vdpa_remove does. */
    synchronized void removeFromBus() throws LinuxException {
        if (!onBus) {
            throw new LinuxException("vdpa dev del", name, Errno.ENODEV);
        }
        leaving = true;
        while (held) {
            try {
                wait();
            } catch (InterruptedException e) {
                throw new AssertionError(e);
            }
        }
        onBus = false;
        leaving = false;
    }

    synchronized void hold() throws LinuxException {
        if (held) {
            throw new LinuxException("open", name, Errno.EBUSY);
        }
        held = true;
    }

    synchronized void letGo() {
        held = false;
        notifyAll();
    }

    synchronized void destroy() throws LinuxException {
        if (onBus || served != null) {
            throw SimulatedKernel.error("DESTROY_DEV", Errno.EBUSY);
        }
        discard();
    }

    synchronized void discard() {
        resetState();
        forget();
        readable.close();
    }

    int status() {
        synchronized (this) {
            return status;
        }
    }

    /** Sends a request and waits for the answer; a device whose server is silent is broken. */
    private Message ask(int type, long argument, long last) throws LinuxException {
        synchronized (this) {
            if (broken) {
                throw SimulatedKernel.error("message", Errno.EIO);
            }
            Message message = new Message(new VduseDevice.Request(type, nextId++, argument, last));
            toSend.add(message);
            readable.signal();
            long end =
                    System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(kernel.messageTimeoutMillis);
            while (!message.answered) {
                long millis = (end - System.nanoTime()) / 1_000_000;
                if (millis <= 0) {
                    toSend.remove(message);
                    sent.remove(message.request.id());
                    broken = true;
                    throw SimulatedKernel.error("message", Errno.EIO);
                }
                try {
                    wait(millis);
                } catch (InterruptedException e) {
                    throw new AssertionError(e);
                }
            }
            if (!message.done) {
                throw SimulatedKernel.error("message", Errno.EIO);
            }
            return message;
        }
    }

    /** vduse_vdpa_set_status: what the server refuses is not written, and nobody is told. */
    void writeStatus(int value) {
        try {
            ask(VduseDevice.SET_STATUS, value, 0);
        } catch (LinuxException e) {
            return;
        }
        kernel.beforeStatus.run();
        synchronized (this) {
            status = value;
        }
    }

    void reset() throws LinuxException {
        try {
            ask(VduseDevice.SET_STATUS, 0, 0);
        } finally {
            resetState();
        }
    }

    private synchronized void resetState() {
        status = 0;
        driverFeatures = 0;
        SimulatedKernel.close(configCall);
        configCall = null;
        for (SimulatedKernel.Queue queue : queues) {
            queue.reset();
        }
    }

    synchronized void driverFeatures(long bits) {
        driverFeatures = bits;
    }

    private boolean isPacked() {
        return (driverFeatures & 1L << Feature.RING_PACKED) != 0;
    }

    synchronized void configCall(EventFd call) throws LinuxException {
        SimulatedKernel.close(configCall);
        configCall = SimulatedKernel.dup(call);
    }

    synchronized byte[] config() {
        return config.clone();
    }

    synchronized void kick(int index) throws LinuxException {
        SimulatedKernel.Queue queue = queues[index];
        if (queue.ready) {
            queue.kicked |= queue.kick == null;
            SimulatedKernel.signal(queue.kick);
        }
    }

    int nextAvailable(int index) throws LinuxException {
        return VduseDevice.nextAvailable(ask(VduseDevice.GET_VQ_STATE, index, 0).state, isPacked());
    }

    /** vduse_vdpa_set_map: the server is told that all may have changed. */
    void map(Iterable<Entry> entries) throws LinuxException {
        synchronized (this) {
            forget();
            for (Entry entry : entries) {
                FileDescriptor file = entry.file.dup();
                memory.put(
                        entry.start,
                        new Entry(file, entry.offset, entry.start, entry.last, entry.permission));
            }
        }
        ask(VduseDevice.UPDATE_IOTLB, 0, -1);
    }

    private void forget() {
        memory.values().forEach(entry -> entry.file.close());
        memory.clear();
    }

    // What its server does with it.

    synchronized VduseDevice open() throws LinuxException {
        if (served != null) {
            throw new LinuxException("open", name, Errno.EBUSY);
        }
        served = new Served();
        return served;
    }

    /** The server's process has died. */
    synchronized void sever() {
        if (served != null) {
            served.close();
        }
    }

    private final class Served implements VduseDevice {
        private final FileDescriptor file;
        private boolean closed;

        private Served() throws LinuxException {
            file = readable.file().dup();
        }

        private void check(String call) throws LinuxException {
            if (closed) {
                throw SimulatedKernel.error(call, Errno.EBADF);
            }
            if (broken && !call.equals("read") && !call.equals("write")) {
                throw SimulatedKernel.error(call, Errno.EPERM);
            }
        }

        private SimulatedKernel.Queue queue(String call, int index) throws LinuxException {
            check(call);
            if (index < 0 || index >= queues.length) {
                throw SimulatedKernel.error(call, Errno.EINVAL);
            }
            return queues[index];
        }

        @Override
        public FileDescriptor file() {
            return file;
        }

        @Override
        public Request read() throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("read");
                Message message = toSend.poll();
                if (message == null) {
                    readable.drain();
                    return null;
                }
                sent.put(message.request.id(), message);
                return message.request;
            }
        }

        @Override
        public void reply(Request request, boolean done, long state) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("write");
                Message message = sent.remove(request.id());
                if (message == null) {
                    throw SimulatedKernel.error("write", Errno.ENOENT);
                }
                message.answered = true;
                message.done = done;
                message.state = state;
                SimulatedVduse.this.notifyAll();
            }
        }

        @Override
        public long features() throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("DEV_GET_FEATURES");
                return driverFeatures;
            }
        }

        @Override
        public void config(byte[] bytes) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("DEV_SET_CONFIG");
                if (bytes.length == 0 || bytes.length > config.length) {
                    throw SimulatedKernel.error("DEV_SET_CONFIG", Errno.EINVAL);
                }
                System.arraycopy(bytes, 0, config, 0, bytes.length);
            }
        }

        @Override
        public void configInterrupt() throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("DEV_INJECT_CONFIG_IRQ");
                if (!SimulatedKernel.isUp(status)) {
                    kernel.refusedInterrupts.incrementAndGet();
                    throw SimulatedKernel.error("DEV_INJECT_CONFIG_IRQ", Errno.EINVAL);
                }
                SimulatedKernel.signal(configCall);
            }
        }

        @Override
        public void setUpQueue(int queue, int maxSize) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                queue("VQ_SETUP", queue).maxSize = maxSize;
            }
        }

        @Override
        public QueueInfo queueInfo(int index) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                SimulatedKernel.Queue queue = queue("VQ_GET_INFO", index);
                return new QueueInfo(
                        queue.size,
                        queue.descriptorArea,
                        queue.driverArea,
                        queue.deviceArea,
                        VduseDevice.state(queue.base, isPacked()),
                        queue.ready);
            }
        }

        @Override
        public void kick(int index, EventFd kick) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                SimulatedKernel.Queue queue = queue("VQ_SETUP_KICKFD", index);
                SimulatedKernel.close(queue.kick);
                queue.kick = SimulatedKernel.dup(kick);
                if (queue.ready && queue.kicked) {
                    queue.kicked = false;
                    SimulatedKernel.signal(queue.kick);
                }
            }
        }

        @Override
        public void interrupt(int index) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                SimulatedKernel.Queue queue = queue("VQ_INJECT_IRQ", index);
                if (!SimulatedKernel.isUp(status)) {
                    kernel.refusedInterrupts.incrementAndGet();
                    throw SimulatedKernel.error("VQ_INJECT_IRQ", Errno.EINVAL);
                }
                SimulatedKernel.signal(queue.call);
            }
        }

        @Override
        public Region region(long start, long last) throws LinuxException {
            synchronized (SimulatedVduse.this) {
                check("IOTLB_GET_FD");
                Map.Entry<Long, Entry> found = memory.floorEntry(last);
                if (found == null || found.getValue().last < start) {
                    return null;
                }
                Entry entry = found.getValue();
                return new Region(
                        entry.file.dup(), entry.offset, entry.start, entry.last, entry.permission);
            }
        }

        @Override
        public void close() {
            synchronized (SimulatedVduse.this) {
                if (closed) {
                    return;
                }
                closed = true;
                file.close();
                // What was read and not answered is for the next one.
                sent.values().forEach(toSend::addFirst);
                sent.clear();
                try {
                    readable.signal();
                } catch (LinuxException e) {
                    throw new AssertionError(e);
                }
                served = null;
            }
        }
    }
}
