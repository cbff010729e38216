package virtio.transport.vduse;

import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

/**
 * What the kernel does for who serves a VDUSE device, one method for each request
 * (drivers/vdpa/vdpa_user/vduse_dev.c).
 *
 * <p>The border to the kernel, as {@link VhostVdpa} is for the driver end; below it is {@link
 * VduseFile}. {@link #interrupt}, {@link #region} and the configuration are for any thread at any
 * time, everything else is for one at a time.
 */
interface VduseDevice extends AutoCloseable {
    /** Request: where does a queue stand. */
    int GET_VQ_STATE = 0;

    /** Request: the driver has written the device status. */
    int SET_STATUS = 1;

    /** Request: what was in a range of addresses is so no longer. */
    int UPDATE_IOTLB = 2;

    /** Permission of a region: the device may read. */
    int ACCESS_RO = 1;

    /** Permission of a region: the device may write. */
    int ACCESS_WO = 2;

    /**
     * A request of the kernel's, which it waits 30 seconds for the answer of.
     *
     * @param type GET_VQ_STATE, SET_STATUS or UPDATE_IOTLB
     * @param id what the answer refers to
     * @param argument queue, device status, or first address
     * @param last last address, unsigned
     */
    record Request(int type, int id, long argument, long last) {}

    /**
     * What the driver has said about a queue; where it begins is said by {@link #nextAvailable}.
     */
    record QueueInfo(
            int size,
            long descriptorArea,
            long driverArea,
            long deviceArea,
            long state,
            boolean ready) {}

    /**
     * Where a queue stands, as the kernel says it: struct vduse_vq_state_split, the available
     * index; or struct vduse_vq_state_packed, four of 16 bits.
     *
     * <pre>
     * | available wrap counter | available index | used wrap counter | used index |
     * </pre>
     *
     * @param nextAvailable as of {@link virtio.api.transport.QueueLayout}
     */
    static long state(int nextAvailable, boolean packed) {
        if (!packed) {
            return nextAvailable & 0xFFFFL;
        }
        return packedState(nextAvailable) | packedState(nextAvailable >>> 16) << 32;
    }

    private static long packedState(int indexAndWrap) {
        return indexAndWrap >>> 15 & 1L | (indexAndWrap & 0x7FFFL) << 16;
    }

    /** The other way round. */
    static int nextAvailable(long state, boolean packed) {
        if (!packed) {
            return (int) state & 0xFFFF;
        }
        return indexAndWrap((int) state) | indexAndWrap((int) (state >>> 32)) << 16;
    }

    private static int indexAndWrap(int packedState) {
        return packedState >>> 16 & 0x7FFF | (packedState & 1) << 15;
    }

    /**
     * Memory that the device may access, from {@code start} to {@code last} included.
     *
     * @param file to be mapped, from {@code offset}; owned by who asked
     * @param permission of ACCESS_RO and ACCESS_WO
     */
    record Region(FileDescriptor file, long offset, long start, long last, int permission) {}

    /**
     * Readable when there is a request, in error when the kernel has given the device up; stays
     * this object's.
     */
    FileDescriptor file();

    /** The next request, or null when there is none. */
    Request read() throws LinuxException;

    /**
     * Answers a request; ENOENT when the kernel waits for it no longer.
     *
     * @param done false: refused
     * @param state of a queue, to a GET_VQ_STATE, else 0
     */
    void reply(Request request, boolean done, long state) throws LinuxException;

    /** What the driver has accepted, once FEATURES_OK is set. */
    long features() throws LinuxException;

    /**
     * Replaces the configuration that drivers read; EINVAL when it is longer than it was, or empty.
     */
    void config(byte[] config) throws LinuxException;

    /** Configuration change notification; EINVAL when no driver is up. */
    void configInterrupt() throws LinuxException;

    /** Says a queue's most descriptors, before the device is on the bus. */
    void setUpQueue(int queue, int maxSize) throws LinuxException;

    /** What the driver has said about a queue. */
    QueueInfo queueInfo(int queue) throws LinuxException;

    /** The eventfd that is signalled by the driver's notifications, until the device is reset. */
    void kick(int queue, EventFd kick) throws LinuxException;

    /** Used buffer notification; allocates nothing; EINVAL when no driver is up. */
    void interrupt(int queue) throws LinuxException;

    /** The first region that meets the addresses from {@code start} to {@code last}, or null. */
    Region region(long start, long last) throws LinuxException;

    /** Lets go of the device, which stays: requests wait for the next who opens it. */
    @Override
    void close();
}
