package virtio.api.backend;

import org.osgi.annotation.versioning.ProviderType;

/**
 * The device's end of a virtqueue.
 *
 * <p>Not thread-safe but for {@link #schedule}: used on the queue's thread, within {@link
 * Backend#process}. A driver that breaks a promise (a loop of descriptors, memory it has not
 * shared) breaks the queue, which then has nothing available. The core notifies the driver as it
 * wants to be, when {@code process} returns, unless it is held.
 */
@ProviderType
public interface DeviceQueue {
    /** The queue's number in the device. */
    int index();

    /** Number of descriptors. */
    int size();

    /** Something {@link #next} can fill, to be made once and reused. */
    Chain newChain();

    /** Takes the next available buffer; false when there is none. */
    boolean next(Chain into);

    /**
     * Takes as many available buffers as there are now.
     *
     * @param count the most to take, into as many of {@code into} from index 0
     * @return how many were taken
     */
    default int next(Chain[] into, int count) {
        int taken = 0;
        while (taken < count && next(into[taken])) {
            taken++;
        }
        return taken;
    }

    /**
     * Gives a buffer back to the driver, in any order.
     *
     * @param written bytes from the start of the device-writable part that were written
     * @throws IllegalArgumentException when that is more than the part has, or the chain is not
     *     open
     */
    void complete(Chain chain, long written);

    /**
     * Gives several buffers back at once: the driver sees all of them or none (virtio 5.1.6.3.2
     * asks for that where a frame is spread over them). Faster than one by one, since what the
     * driver looks at is written once.
     *
     * @param count how many of both arrays, 1 or more; otherwise as {@link #complete(Chain, long)}
     */
    void complete(Chain[] chains, long[] written, int count);

    /** Tells the driver about completed buffers now, if it wants to know; before a long pause. */
    void notifyDriver();

    /**
     * Whether it is left to the backend to tell the driver, by {@link #notifyDriver}: then {@code
     * process} returns without it. Off when a queue starts.
     */
    void holdNotifications(boolean hold);

    /** Asks for {@link Backend#process} soon; from any thread. */
    void schedule();
}
