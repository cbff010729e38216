package virtio.transport.vduse;

import java.io.IOException;

/** The life of VDUSE devices; below it is {@link VduseControl}. Thread-safe. */
interface Vduse {
    /** Why no device can be made here, in one sentence that says what to do; null when it can. */
    String unavailable();

    /** Whether there is a device of that name, served or not. */
    boolean exists(String name);

    /**
     * Makes a device, which nobody sees until it is on the bus.
     *
     * @param features what it offers, ACCESS_PLATFORM included
     */
    void create(String name, int deviceType, long features, int queues, byte[] config)
            throws IOException;

    /** Opens a device to serve it; EBUSY when somebody else does. */
    VduseDevice open(String name, int queues) throws IOException;

    /** Removes a device that is off the bus and not open. */
    void destroy(String name) throws IOException;

    /**
     * Puts a device on the vDPA bus, as {@code vdpa dev add name NAME mgmtdev vduse} does; while it
     * lasts the device must be served, as a driver may take it. EEXIST when it is there.
     */
    void addToBus(String name) throws IOException;

    /**
     * Takes a device off the bus, as {@code vdpa dev del NAME} does; waits until a user of
     * vhost-vdpa has let go of it. ENODEV when it is not there.
     */
    void removeFromBus(String name) throws IOException;

    /** Whether the device of that name on the bus is no VDUSE one; false where none is seen. */
    boolean isAnother(String name);

    /** The driver that a device on the bus is bound to; null for none. */
    String driver(String name);
}
