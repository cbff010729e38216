package virtio.transport.vhostuser;

import virtio.api.transport.QueueLayout;
import virtio.linux.EventFd;
import virtio.linux.EventLoop;
import virtio.linux.LinuxException;
import virtio.linux.Memory;

import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** A started ring at the front-end: where it lies, and the counters by which both ends notify. */
final class Vring implements AutoCloseable {
    /** Offset of {@code idx} in the used ring (virtio 2.7.8 The Virtqueue Used Ring). */
    private static final int USED_INDEX = 2;

    final boolean packed;
    final EventFd kick;
    final EventFd call;
    final EventFd err;
    private final QueueLayout layout;
    private final List<EventLoop.Watch> watches = new ArrayList<>();

    Vring(QueueLayout layout, boolean packed) throws LinuxException {
        this.layout = layout;
        this.packed = packed;
        EventFd[] made = new EventFd[3];
        try {
            for (int i = 0; i < made.length; i++) {
                made[i] = EventFd.create();
            }
        } catch (LinuxException e) {
            for (EventFd one : made) {
                if (one != null) {
                    one.close();
                }
            }
            throw e;
        }
        kick = made[0];
        call = made[1];
        err = made[2];
    }

    /** What is to end with the ring. */
    void watched(EventLoop.Watch watch) {
        watches.add(watch);
    }

    /** The vring address description; a handle is the user address that is due here. */
    ByteBuffer addresses(int queue) {
        ByteBuffer addresses = Message.payload(VhostUser.ADDR_BYTES);
        addresses.putInt(queue).putInt(0);
        addresses.putLong(layout.descriptorArea());
        addresses.putLong(layout.deviceArea());
        addresses.putLong(layout.driverArea());
        return addresses.putLong(0);
    }

    /** Available buffer notification; allocates nothing. */
    void notifyDevice() {
        try {
            kick.signal();
        } catch (LinuxException e) {
            // Closed meanwhile: nobody is there to be told.
        }
    }

    /**
     * Whether a ring that stopped at {@code base} has used all that it took.
     *
     * @param base what GET_VRING_BASE said: the next available index; on a packed ring with the
     *     next used one above it
     */
    boolean drained(int base) {
        if (packed) {
            return (base & 0xFFFF) == base >>> 16;
        }
        short used =
                Memory.ALL.get(ValueLayout.JAVA_SHORT_UNALIGNED, layout.deviceArea() + USED_INDEX);
        return (short) base == used;
    }

    @Override
    public void close() {
        watches.forEach(EventLoop.Watch::cancel);
        kick.close();
        call.close();
        err.close();
    }
}
