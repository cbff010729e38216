package virtio.transport.mmio;

import virtio.api.VirtioException;

/**
 * The registers of one device as the driver end reaches them: emulated here, mapped elsewhere.
 *
 * <p>Accesses never fail: a window that is gone reads as all ones and ignores writes, as a bus does
 * when a card is pulled; {@link #gone} says so. Reading and acknowledging interrupts and {@link
 * MmioRegisters#QUEUE_NOTIFY} may be done by any thread at any time and allocate nothing, the rest
 * by one thread at a time.
 */
interface RegisterWindow {
    /** Reads a register, one of {@link MmioRegisters}. */
    int read(int offset);

    /** Writes a register, one of {@link MmioRegisters}. */
    void write(int offset, int value);

    /** Bytes of configuration space that the window shows. */
    int configBytes();

    /**
     * Reads 1, 2 or 4 bytes of configuration space in one access, unsigned.
     *
     * @param offset a multiple of {@code width}, from the start of the configuration space
     */
    int readConfig(int offset, int width);

    /** Writes 1, 2 or 4 bytes of configuration space in one access; as {@link #readConfig}. */
    void writeConfig(int offset, int width, int value);

    /** Why the window does not answer any more, one sentence; null while it does. */
    VirtioException gone();

    /** Lets the driver go; the window can be taken by another. Idempotent. */
    void detach(Driver driver);

    /** Who has taken the window. */
    interface Driver {
        /** The device raised its interrupt line; never called by two threads at once. */
        void interrupt();

        /** The window does not answer any more; see {@link #gone}. */
        void gone();
    }
}
