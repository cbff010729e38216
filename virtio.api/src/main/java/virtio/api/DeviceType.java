package virtio.api;

/** Device types by their number (virtio 5 Device Types). */
public final class DeviceType {
    /** Network card. */
    public static final int NETWORK = 1;

    /** Block device. */
    public static final int BLOCK = 2;

    private DeviceType() {}

    /** The word people use for it: {@code net}, {@code blk}, or {@code type 18}. */
    public static String name(int deviceType) {
        return switch (deviceType) {
            case NETWORK -> "net";
            case BLOCK -> "blk";
            default -> "type " + deviceType;
        };
    }
}
