package virtio.ring;

/**
 * What the operator sets for all devices.
 *
 * @param swapTimeoutMillis how long consumers' calls may wait for a swap or a reconnect
 * @param drainTimeoutMillis how long a freeze may wait for what is in flight
 * @param reconnectIntervalMillis pause between two attempts to find a lost device again
 * @param stepMillis how long others wait for a step of a lifecycle beyond the waits above; not for
 *     the operator
 */
record Settings(
        long swapTimeoutMillis,
        long drainTimeoutMillis,
        long reconnectIntervalMillis,
        long stepMillis) {
    /** Longer than the transports here wait for the answer to one message. */
    private static final long STEP_MILLIS = 15_000;

    static final Settings DEFAULT = new Settings(30_000, 5_000, 200);

    Settings(long swapTimeoutMillis, long drainTimeoutMillis, long reconnectIntervalMillis) {
        this(swapTimeoutMillis, drainTimeoutMillis, reconnectIntervalMillis, STEP_MILLIS);
    }

    Settings {
        check("swapTimeoutMillis", swapTimeoutMillis, 0);
        check("drainTimeoutMillis", drainTimeoutMillis, 0);
        check("reconnectIntervalMillis", reconnectIntervalMillis, 1);
    }

    /** How long to wait until a device has let go of a service that leaves. */
    long departureMillis() {
        return drainTimeoutMillis + stepMillis;
    }

    /** How long a person's attach, detach or swap may take. */
    long operationMillis() {
        return swapTimeoutMillis + drainTimeoutMillis + stepMillis;
    }

    private static void check(String name, long value, long least) {
        if (value < least) {
            throw new IllegalArgumentException(
                    "%s is %d, the least is %d".formatted(name, value, least));
        }
    }
}
