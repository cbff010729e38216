package virtio.backend.net;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;

/**
 * A learning switch (IEEE 802.1Q 8.6 to 8.8, without spanning tree): a frame goes where its
 * destination was seen last, or everywhere.
 */
final class Switch implements Link {
    /** As bridges do. */
    private static final long AGE_NANOS = TimeUnit.SECONDS.toNanos(300);

    /** Bounds what frames with made-up sources make us keep. */
    private static final int SLOTS = 4096;

    private static final int MAX_ADDRESSES = SLOTS / 2;
    private static final long GROUP = 1L << 40;

    private final List<Port> ports = new CopyOnWriteArrayList<>();
    private final LongSupplier nanoTime;
    private volatile Table table = new Table();

    Switch() {
        this(System::nanoTime);
    }

    /** With a clock of the caller's. */
    Switch(LongSupplier nanoTime) {
        this.nanoTime = nanoTime;
    }

    void join(Port port) {
        ports.add(port);
    }

    @Override
    public void leave(Port port) {
        ports.remove(port);
        synchronized (this) {
            Table old = table;
            Table now = new Table();
            for (int slot = 0; slot < SLOTS; slot++) {
                if (old.ports[slot] != null && old.ports[slot] != port) {
                    now.put(old.addresses[slot], old.ports[slot], old.seen[slot]);
                }
            }
            table = now;
        }
    }

    boolean isEmpty() {
        return ports.isEmpty();
    }

    @Override
    public void send(Port from, Sender sender) {
        long source = sender.frame.source();
        long destination = sender.frame.destination();
        Table now = table;
        if ((source & GROUP) == 0) {
            int slot = now.find(source);
            if (slot >= 0 && now.ports[slot] == from) {
                now.seen[slot] = nanoTime.getAsLong();
            } else {
                learn(source, from);
            }
        }
        if ((destination & GROUP) == 0) {
            int slot = now.find(destination);
            if (slot >= 0 && nanoTime.getAsLong() - now.seen[slot] < AGE_NANOS) {
                if (now.ports[slot] != from) {
                    now.ports[slot].deliver(sender);
                }
                return;
            }
        }
        for (Port port : ports) {
            if (port != from) {
                port.deliver(sender);
            }
        }
    }

    /** Tables are written by copying, so that senders read them without a lock. */
    private synchronized void learn(long address, Port port) {
        if (!ports.contains(port)) {
            return;
        }
        Table old = table;
        Table now = new Table();
        long time = nanoTime.getAsLong();
        int oldest = -1;
        if (old.count >= MAX_ADDRESSES) {
            for (int slot = 0; slot < SLOTS; slot++) {
                if (old.ports[slot] != null
                        && (oldest < 0 || old.seen[slot] - old.seen[oldest] < 0)) {
                    oldest = slot;
                }
            }
        }
        for (int slot = 0; slot < SLOTS; slot++) {
            if (old.ports[slot] != null
                    && old.addresses[slot] != address
                    && slot != oldest
                    && time - old.seen[slot] < AGE_NANOS) {
                now.put(old.addresses[slot], old.ports[slot], old.seen[slot]);
            }
        }
        now.put(address, port, time);
        table = now;
    }

    /** Addresses by open addressing; only {@link #seen} changes once it is published. */
    private static final class Table {
        final long[] addresses = new long[SLOTS];
        final Port[] ports = new Port[SLOTS];
        final long[] seen = new long[SLOTS];
        int count;

        private static int first(long address) {
            return (int) (address * 0x9E3779B97F4A7C15L >>> 40) & SLOTS - 1;
        }

        int find(long address) {
            for (int slot = first(address); ports[slot] != null; slot = slot + 1 & SLOTS - 1) {
                if (addresses[slot] == address) {
                    return slot;
                }
            }
            return -1;
        }

        void put(long address, Port port, long time) {
            int slot = first(address);
            while (ports[slot] != null) {
                slot = slot + 1 & SLOTS - 1;
            }
            addresses[slot] = address;
            ports[slot] = port;
            seen[slot] = time;
            count++;
        }
    }
}
