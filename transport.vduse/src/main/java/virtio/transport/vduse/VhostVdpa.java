package virtio.transport.vduse;

import virtio.linux.EventFd;
import virtio.linux.LinuxException;

/**
 * What the kernel does for who has opened a vDPA device by its character device, one method for
 * each request (drivers/vhost/vdpa.c).
 *
 * <p>The border to the kernel: above it nothing knows of requests and structures, below it is
 * {@link VhostVdpaFile}. Used by one thread at a time, another one for {@link #iotlb}, and any for
 * {@link #close}. Every error is the kernel's; closing resets the device, and after that everything
 * fails with EBADF.
 */
interface VhostVdpa extends AutoCloseable {
    /** Backend feature: messages about memory have an address space in them. */
    int BACKEND_F_IOTLB_MSG_V2 = 1;

    /** Backend feature: messages about memory can be sent in batches. */
    int BACKEND_F_IOTLB_BATCH = 2;

    /** Backend feature: there are address spaces beside 0. */
    int BACKEND_F_IOTLB_ASID = 3;

    /** Backend feature: the device can be suspended. */
    int BACKEND_F_SUSPEND = 4;

    /** Backend feature: mappings stay when the device is reset. */
    int BACKEND_F_IOTLB_PERSIST = 8;

    /** A change of what the device sees. */
    enum Iotlb {
        /** Shows a range of which nothing is shown yet. */
        UPDATE(2),
        /** Takes a range away; no error when there is nothing. */
        INVALIDATE(3),
        /** What follows takes effect together. */
        BATCH_BEGIN(5),
        /** All of the batch is said. */
        BATCH_END(6);

        /** The type in the message. */
        final int type;

        Iotlb(int type) {
            this.type = type;
        }
    }

    /** Permission in {@link #iotlb}: the device may read and write. */
    int ACCESS_RW = 3;

    /** Takes the device for this process, before everything else. */
    void setOwner() throws LinuxException;

    /** What the kernel can do for this device, bits of BACKEND_F. */
    long backendFeatures() throws LinuxException;

    /** What of that is wanted. */
    void backendFeatures(long bits) throws LinuxException;

    /** The device's type, as of {@link virtio.api.DeviceType}. */
    int deviceType() throws LinuxException;

    /** What the device offers. */
    long features() throws LinuxException;

    /** What the driver accepts; EBUSY when FEATURES_OK is set. */
    void features(long bits) throws LinuxException;

    /** The device status. */
    int status() throws LinuxException;

    /** Writes the device status; EINVAL when bits are taken away, unless all are: a reset. */
    void status(int value) throws LinuxException;

    /** Bytes of the configuration. */
    int configSize() throws LinuxException;

    /** Reads configuration; E2BIG or EINVAL beyond it. */
    void readConfig(int offset, byte[] into) throws LinuxException;

    /** Writes configuration; what the device ignores is no error. */
    void writeConfig(int offset, byte[] from) throws LinuxException;

    /** The eventfd that is signalled when the configuration has changed, until the next reset. */
    void configCall(EventFd call) throws LinuxException;

    /** First and last address that can be shown to the device. */
    long[] iovaRange() throws LinuxException;

    /** Number of queues. */
    int queueCount() throws LinuxException;

    /** Most descriptors of any queue. */
    int maxQueueSize() throws LinuxException;

    /**
     * Descriptors of a queue, which are its most as long as nobody has chosen less; EOPNOTSUPP or
     * ENOTTY where the kernel cannot say.
     */
    int queueSize(int queue) throws LinuxException;

    /** Number of groups of queues; the queues of a group share an address space. */
    int groupCount() throws LinuxException;

    /** Puts a group's queues into an address space. */
    void groupAddressSpace(int group, int addressSpace) throws LinuxException;

    /** Descriptors of a queue: a power of two. */
    void vringNum(int queue, int size) throws LinuxException;

    /** Where the queue begins: the available index; on a packed ring with the used one above. */
    void vringBase(int queue, int base) throws LinuxException;

    /** Where a queue's three areas lie, as the device sees them. */
    void vringAddresses(int queue, long descriptorArea, long driverArea, long deviceArea)
            throws LinuxException;

    /** The eventfd by which the driver notifies the device; null for none. */
    void vringKick(int queue, EventFd kick) throws LinuxException;

    /** The eventfd by which the device notifies the driver; null for none. */
    void vringCall(int queue, EventFd call) throws LinuxException;

    /** Makes a queue ready, or not. */
    void vringEnable(int queue, boolean enable) throws LinuxException;

    /**
     * Changes what the device sees; whatever the reason, an error is EFAULT.
     *
     * @param iova where the device sees it
     * @param bytes how much, whole pages
     * @param address where it lies in this process, in memory shared by a file
     */
    void iotlb(Iotlb change, int addressSpace, long iova, long bytes, long address)
            throws LinuxException;

    /** Stops the device from touching its queues; EOPNOTSUPP where it cannot be. */
    void suspend() throws LinuxException;

    /** Lets the device go, which resets it; idempotent. */
    @Override
    void close();
}
