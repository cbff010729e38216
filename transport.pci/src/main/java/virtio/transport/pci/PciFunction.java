package virtio.transport.pci;

import virtio.api.VirtioException;

/**
 * One PCI function as the driver end reaches it: emulated here, handed out by VFIO elsewhere.
 *
 * <p>Accesses never fail: a function that is gone reads as all ones and ignores writes, as a bus
 * does when a card is pulled. {@link #write} of notifications and reads of the interrupt status may
 * be done by any thread at any time and allocate nothing, the rest by one thread at a time.
 */
interface PciFunction {
    /** Most vectors that are asked for; further queues share. */
    int MOST_VECTORS = 64;

    /** What {@link Driver#interrupt} gets for the pin. */
    int PIN = -1;

    /** Reads 1, 2 or 4 bytes of configuration space, unsigned. */
    int readConfig(int offset, int width);

    /** Writes 1, 2 or 4 bytes of configuration space. */
    void writeConfig(int offset, int width, int value);

    /**
     * Whether an IOMMU stands between the device and memory, so that handles mean nothing to a
     * device that does not know of it.
     */
    boolean translated();

    /** Bytes of a BAR that can be accessed, 0 when there is none. */
    long barBytes(int bar);

    /** Reads 1, 2 or 4 bytes of a BAR in one access, unsigned, aligned and within the BAR. */
    int read(int bar, long offset, int width);

    /** Writes 1, 2 or 4 bytes of a BAR in one access; as {@link #read}. */
    void write(int bar, long offset, int width, int value);

    /**
     * Has MSI-X vectors delivered to the driver from now on, as many from 0 as the platform can.
     *
     * @param vectors at least 1, within the table's size
     * @return how many the platform delivers, 0 when it cannot
     */
    int enableMsix(int vectors) throws VirtioException;

    /** Has the interrupt pin delivered to the driver from now on; false when there is none. */
    boolean enablePin() throws VirtioException;

    /** Delivers nothing any more. */
    void disableInterrupts();

    /** Why the function does not answer any more, one sentence; null while it does. */
    VirtioException gone();

    /** Lets the driver go; the function can be taken by another. Idempotent. */
    void detach(Driver driver);

    /** Who has taken the function. */
    interface Driver {
        /**
         * The device interrupted; never called by two threads at once for one vector.
         *
         * @param vector an MSI-X vector, or {@link #PIN}
         */
        void interrupt(int vector);

        /** The function does not answer any more; see {@link PciFunction#gone}. */
        void gone();
    }
}
