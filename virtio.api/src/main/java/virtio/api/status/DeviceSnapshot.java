package virtio.api.status;

import virtio.api.Features;

import java.util.List;

/**
 * An attached device at one moment.
 *
 * @param name as attached
 * @param address where it is attached to
 * @param state what it is doing
 * @param reason why it is not {@link State#ACTIVE}; null when it is
 * @param deviceType a constant of {@link virtio.api.DeviceType}; 0 while unknown
 * @param deviceStatus bits of {@link virtio.api.DeviceStatus} as last written or read by the core
 * @param offered what the device offers
 * @param wanted what driver and ring want
 * @param accepted what was negotiated
 * @param driver symbolic name and version of the driver's bundle; null while there is none
 * @param transport symbolic name and version of the transport's bundle; null while there is none
 * @param queues its virtqueues
 * @param swaps transports exchanged or reconnected since it was attached
 * @param lastPauseNanos how long the last of them paused the device
 */
public record DeviceSnapshot(
        String name,
        String address,
        State state,
        String reason,
        int deviceType,
        int deviceStatus,
        Features offered,
        Features wanted,
        Features accepted,
        String driver,
        String transport,
        List<QueueSnapshot> queues,
        int swaps,
        long lastPauseNanos) {
    /** What an attached device is doing. */
    public enum State {
        /** Something is missing: transport, map operations, driver or the device itself. */
        WAITING,
        /** In use. */
        ACTIVE,
        /** Between two transports, or lost and being looked for; consumers wait. */
        FROZEN,
        /** Lost for longer than consumers may wait; still looked for. */
        ABANDONED
    }
}
