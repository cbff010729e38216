package virtio.api.net;

/**
 * When a device tells the driver of packets that it has received or sent: after a number of them or
 * of microseconds, whichever is first, counted from the first one since it told the last time
 * (virtio 5.1.6.5.9). 0 of either is at once. Devices do their best, and may round.
 *
 * @param receivePackets 0 or more
 * @param receiveMicros 0 or more
 * @param sendPackets 0 or more
 * @param sendMicros 0 or more
 */
public record Coalescing(int receivePackets, int receiveMicros, int sendPackets, int sendMicros) {
    /** At once, as after a reset. */
    public static final Coalescing NONE = new Coalescing(0, 0, 0, 0);

    /** Refuses negative numbers. */
    public Coalescing {
        if ((receivePackets | receiveMicros | sendPackets | sendMicros) < 0) {
            throw new IllegalArgumentException(
                    "coalescing %d packets or %d us received, %d packets or %d us sent; the limit is 0"
                            .formatted(receivePackets, receiveMicros, sendPackets, sendMicros));
        }
    }
}
