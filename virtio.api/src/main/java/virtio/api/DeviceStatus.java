package virtio.api;

/** Bits of the device status field (virtio 2.1 Device Status Field). */
public final class DeviceStatus {
    /** The guest has found the device. */
    public static final int ACKNOWLEDGE = 1;

    /** The guest knows how to drive the device. */
    public static final int DRIVER = 2;

    /** The driver is set up. */
    public static final int DRIVER_OK = 4;

    /** Features are negotiated. */
    public static final int FEATURES_OK = 8;

    /** The device has hit an error it cannot recover from without a reset. */
    public static final int DEVICE_NEEDS_RESET = 64;

    /** The driver has given up. */
    public static final int FAILED = 128;

    private DeviceStatus() {}

    /** Names of the set bits, as {@code ACKNOWLEDGE|DRIVER}; {@code RESET} for 0. */
    public static String name(int status) {
        if (status == 0) {
            return "RESET";
        }
        StringBuilder names = new StringBuilder();
        append(names, status, ACKNOWLEDGE, "ACKNOWLEDGE");
        append(names, status, DRIVER, "DRIVER");
        append(names, status, FEATURES_OK, "FEATURES_OK");
        append(names, status, DRIVER_OK, "DRIVER_OK");
        append(names, status, DEVICE_NEEDS_RESET, "NEEDS_RESET");
        append(names, status, FAILED, "FAILED");
        return names.toString();
    }

    private static void append(StringBuilder names, int status, int bit, String name) {
        if ((status & bit) != 0) {
            names.append(names.isEmpty() ? "" : "|").append(name);
        }
    }
}
