package virtio.api.map;

/** Who writes a mapped buffer; {@code enum dma_data_direction} of Linux. */
public enum Direction {
    /** The driver wrote it, the device only reads it. */
    TO_DEVICE,
    /** The device writes it; its old contents never reach the device. */
    FROM_DEVICE,
    /** Both write it. */
    BIDIRECTIONAL;

    /** Whether the device may read what the driver wrote. */
    public boolean toDevice() {
        return this != FROM_DEVICE;
    }

    /** Whether the driver may read what the device wrote. */
    public boolean fromDevice() {
        return this != TO_DEVICE;
    }
}
