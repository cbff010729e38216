package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.linux.Errno;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;
import virtio.linux.UnixSocket;

import java.io.EOFException;
import java.io.IOException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The front-end's side of the conversation: requests, what is negotiated, and whether it has ended.
 *
 * <p>Thread-safe; one request at a time. A refused request leaves the conversation going. Anything
 * else that goes wrong ends it, and every later request fails with the same reason.
 */
final class FrontEnd implements AutoCloseable {
    /** What this front-end can make use of. */
    private static final long WANTED =
            bit(VhostUser.PROTOCOL_F_MQ)
                    | bit(VhostUser.PROTOCOL_F_REPLY_ACK)
                    | bit(VhostUser.PROTOCOL_F_BACKEND_REQ)
                    | bit(VhostUser.PROTOCOL_F_CONFIG)
                    | bit(VhostUser.PROTOCOL_F_RESET_DEVICE)
                    | bit(VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS)
                    | bit(VhostUser.PROTOCOL_F_STATUS);

    /** Peers that do not answer GET_QUEUE_NUM exist: they are not waited for as long. */
    private static final int QUEUE_NUM_MILLIS = 1000;

    private final String address;
    private final Connection connection;
    private final int timeoutMillis;

    private long features;
    private long offeredProtocol;
    private long protocol;
    private int queueCount = 1;
    private int maxRegions = VhostUser.MAX_TABLE_REGIONS;

    /** GET_QUEUE_NUM went unanswered, so that its answer may still come, in between others. */
    private boolean queueNumOverdue;

    /** The last request, to be blamed when the peer closes: some refuse only so. */
    private volatile int lastRequest;

    private final AtomicReference<VirtioException> failure = new AtomicReference<>();

    private FrontEnd(String address, Connection connection, int timeoutMillis) {
        this.address = address;
        this.connection = connection;
        this.timeoutMillis = timeoutMillis;
    }

    private static long bit(int number) {
        return 1L << number;
    }

    /**
     * Connects and negotiates the protocol.
     *
     * @param address what messages call it
     * @param timeoutMillis how long the back-end may take for one answer
     * @throws VirtioException in one sentence: there is no socket, nobody answers, nothing is
     *     allowed, or the back-end speaks nonsense
     */
    static FrontEnd connect(String address, Path path, int timeoutMillis) throws VirtioException {
        UnixSocket socket;
        try {
            socket = UnixSocket.connect(path, timeoutMillis);
        } catch (IOException e) {
            throw new VirtioException(address + ": " + unreachable(path, e), e);
        }
        FrontEnd frontEnd = new FrontEnd(address, new Connection(socket), timeoutMillis);
        try {
            frontEnd.negotiate();
            return frontEnd;
        } catch (VirtioException | RuntimeException e) {
            frontEnd.close();
            throw e;
        }
    }

    /** Why a socket cannot be connected to, and what to do. */
    static String unreachable(Path path, IOException e) {
        if (e instanceof LinuxException linux) {
            return switch (linux.errno()) {
                case Errno.ENOENT, Errno.ENOTDIR ->
                        "there is no such socket; start the back-end that makes it";
                case Errno.ECONNREFUSED ->
                        isSocket(path)
                                ? "nobody answers there; start the back-end again"
                                : "that is no socket; name the one the back-end listens on";
                case Errno.EACCES, Errno.EPERM ->
                        "permission denied; the socket and its folders must be writable for this"
                                + " user";
                case Errno.EPROTOTYPE -> "that is no stream socket, so no vhost-user back-end";
                default -> e.getMessage();
            };
        }
        return e.getMessage();
    }

    private static boolean isSocket(Path path) {
        try {
            return ((int) Files.getAttribute(path, "unix:mode") & 0xF000) == 0xC000;
        } catch (IOException | UnsupportedOperationException e) {
            return Files.exists(path, LinkOption.NOFOLLOW_LINKS);
        }
    }

    private void negotiate() throws VirtioException {
        features = getLong(VhostUser.GET_FEATURES);
        if ((features & bit(VhostUser.F_PROTOCOL_FEATURES)) != 0) {
            offeredProtocol = getLong(VhostUser.GET_PROTOCOL_FEATURES);
            protocol = offeredProtocol & WANTED;
            setLong(VhostUser.SET_PROTOCOL_FEATURES, protocol);
        }
        set(VhostUser.SET_OWNER, null);
        if (has(VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
            long slots = getLong(VhostUser.GET_MAX_MEM_SLOTS);
            if (slots < 1) {
                throw new VirtioException(
                        "%s has %d memory slots, 1 is needed".formatted(address, slots));
            }
            maxRegions = (int) Math.min(slots, Integer.MAX_VALUE);
        }
        if (has(VhostUser.PROTOCOL_F_MQ)) {
            queryQueueCount();
        }
    }

    private void queryQueueCount() throws VirtioException {
        int wait = Math.min(QUEUE_NUM_MILLIS, timeoutMillis);
        try (Message reply = call(VhostUser.GET_QUEUE_NUM, 0, null, wait)) {
            long count = reply.u64();
            if (count < 1) {
                throw fail("%s has %d queues, 1 is needed".formatted(address, count));
            }
            queueCount = (int) Math.min(count, VhostUser.MAX_VRINGS);
        } catch (NoAnswer e) {
            queueNumOverdue = true;
        }
    }

    /** What people call the back-end: {@code vhost-user:/tmp/x.sock}. */
    String address() {
        return address;
    }

    /** Feature bits 0 to 63 as offered, the protocol's own included. */
    long features() {
        return features;
    }

    /** Whether feature bits of the protocol exist, which has rings start disabled. */
    boolean hasProtocolFeatures() {
        return (features & bit(VhostUser.F_PROTOCOL_FEATURES)) != 0;
    }

    /** Whether the back-end offers a protocol feature, made use of or not. */
    boolean offers(int protocolFeature) {
        return (offeredProtocol & bit(protocolFeature)) != 0;
    }

    /** Whether a protocol feature is negotiated. */
    boolean has(int protocolFeature) {
        return (protocol & bit(protocolFeature)) != 0;
    }

    /** What GET_QUEUE_NUM says: vrings, or pairs of them for net; 1 when it says nothing. */
    int queueCount() {
        return queueCount;
    }

    /** Most memory regions. */
    int maxRegions() {
        return maxRegions;
    }

    /** The socket, to wait on for a hang-up. */
    FileDescriptor file() {
        return connection.file();
    }

    /** Why the conversation has ended; null while it goes on. */
    VirtioException failure() {
        return failure.get();
    }

    /** A request that is answered by a number. */
    long getLong(int request) throws VirtioException {
        try (Message reply = call(request, 0, null, timeoutMillis)) {
            return checked(reply, Long.BYTES).payload().getLong(0);
        }
    }

    /** A request that says a number. */
    void setLong(int request, long value, FileDescriptor... fds) throws VirtioException {
        set(request, Message.u64(value), fds);
    }

    /** A request that says a number about a vring. */
    void setState(int request, int queue, int value) throws VirtioException {
        set(request, Message.state(queue, value));
    }

    /** Stops a vring: the next available index. */
    int getVringBase(int queue) throws VirtioException {
        ByteBuffer state = Message.state(queue, 0);
        try (Message reply = call(VhostUser.GET_VRING_BASE, 0, state, timeoutMillis)) {
            ByteBuffer answer = checked(reply, VhostUser.STATE_BYTES).payload();
            if (answer.getInt(0) != queue) {
                throw fail(
                        "%s answered GET_VRING_BASE of queue %d for queue %s"
                                .formatted(
                                        address,
                                        queue,
                                        Integer.toUnsignedString(answer.getInt(0))));
            }
            return answer.getInt(4);
        }
    }

    /**
     * Returns when the back-end has done all that it was told.
     *
     * <p>An acknowledgement is not enough: some back-ends acknowledge what they refuse, and close.
     */
    void flush() throws VirtioException {
        int told = lastRequest;
        try {
            getLong(VhostUser.GET_FEATURES);
        } catch (VirtioException e) {
            throw new VirtioException(
                    "%s, told %s before".formatted(e.getMessage(), VhostUser.name(told)), e);
        }
    }

    /**
     * Bytes of the configuration.
     *
     * <p>Asked for from offset 0 always: back-ends exist that ignore the offset.
     */
    void getConfig(int offset, byte[] into) throws VirtioException {
        int length = offset + into.length;
        ByteBuffer request = Message.payload(VhostUser.CONFIG_HEADER_BYTES + length);
        request.putInt(4, length);
        try (Message reply = call(VhostUser.GET_CONFIG, 0, request, timeoutMillis)) {
            if (reply.size() <= VhostUser.CONFIG_HEADER_BYTES) {
                throw new VirtioException(
                        "%s has no %d bytes of configuration at offset %d"
                                .formatted(address, into.length, offset));
            }
            ByteBuffer all = checked(reply, request.limit()).payload();
            all.get(VhostUser.CONFIG_HEADER_BYTES + offset, into);
        }
    }

    /** Writes bytes of the configuration. */
    void setConfig(int offset, byte[] from) throws VirtioException {
        ByteBuffer request = Message.payload(VhostUser.CONFIG_HEADER_BYTES + from.length);
        request.putInt(0, offset).putInt(4, from.length);
        request.put(VhostUser.CONFIG_HEADER_BYTES, from);
        set(VhostUser.SET_CONFIG, request);
    }

    /**
     * Shows one more region, all before it shown already, and returns when the back-end knows it.
     * Where the back-end takes whole tables only, all of them are sent again.
     */
    void share(List<SharedMemory> all, int from) throws VirtioException {
        if (has(VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
            for (SharedMemory memory : all.subList(from, all.size())) {
                ByteBuffer region = Message.payload(VhostUser.SINGLE_REGION_BYTES);
                region.putLong(0);
                put(region, memory);
                set(VhostUser.ADD_MEM_REG, region, memory.file());
            }
        } else {
            ByteBuffer table =
                    Message.payload(
                            VhostUser.TABLE_HEADER_BYTES + VhostUser.REGION_BYTES * all.size());
            table.putInt(all.size()).putInt(0);
            all.forEach(memory -> put(table, memory));
            FileDescriptor[] fds =
                    all.stream().map(SharedMemory::file).toArray(FileDescriptor[]::new);
            set(VhostUser.SET_MEM_TABLE, table, fds);
        }
        // A kick takes another road and could overtake the region.
        flush();
    }

    /** Guest address and user address are where the memory lies in this process. */
    private static void put(ByteBuffer into, SharedMemory memory) {
        long at = memory.segment().address();
        into.putLong(at).putLong(memory.segment().byteSize()).putLong(at).putLong(0);
    }

    /** A request that says something, acknowledged where the back-end can. */
    void set(int request, ByteBuffer payload, FileDescriptor... fds) throws VirtioException {
        if (!has(VhostUser.PROTOCOL_F_REPLY_ACK) || request == VhostUser.SET_PROTOCOL_FEATURES) {
            sendOnly(request, payload, fds);
            return;
        }
        try (Message reply = call(request, VhostUser.NEED_REPLY, payload, timeoutMillis, fds)) {
            long error = checked(reply, Long.BYTES).payload().getLong(0);
            if (error != 0) {
                throw new VirtioException(
                        "%s refused %s (%d)".formatted(address, VhostUser.name(request), error));
            }
        }
    }

    private synchronized void sendOnly(int request, ByteBuffer payload, FileDescriptor... fds)
            throws VirtioException {
        checkOpen();
        lastRequest = request;
        try {
            connection.send(request, 0, payload, timeoutMillis, fds);
        } catch (IOException e) {
            throw failed(request, e);
        }
    }

    private synchronized Message call(
            int request, int flags, ByteBuffer payload, int waitMillis, FileDescriptor... fds)
            throws VirtioException {
        checkOpen();
        lastRequest = request;
        Message reply = null;
        try {
            connection.send(request, flags, payload, timeoutMillis, fds);
            reply = connection.receive(waitMillis, timeoutMillis);
            if (reply != null && queueNumOverdue && reply.request() == VhostUser.GET_QUEUE_NUM) {
                reply.close();
                queueNumOverdue = false;
                reply = connection.receive(waitMillis, timeoutMillis);
            }
        } catch (SocketTimeoutException e) {
            String message =
                    "%s: no answer to %s in %d ms"
                            .formatted(address, VhostUser.name(request), waitMillis);
            if (request == VhostUser.GET_QUEUE_NUM) {
                throw new NoAnswer(message);
            }
            throw fail(
                    request == VhostUser.GET_FEATURES && features == 0
                            ? message + "; is another front-end connected?"
                            : message);
        } catch (IOException e) {
            throw failed(request, e);
        }
        if (reply == null) {
            throw fail("peer closed " + address);
        }
        if (reply.request() != request || !reply.isReply()) {
            reply.close();
            throw fail(
                    "%s answered %s with %s, flags %#x"
                            .formatted(
                                    address,
                                    VhostUser.name(request),
                                    VhostUser.name(reply.request()),
                                    reply.flags()));
        }
        return reply;
    }

    private Message checked(Message reply, int bytes) throws VirtioException {
        if (reply.size() != bytes) {
            throw fail(
                    "%s answered %s with %d bytes, %d are due"
                            .formatted(
                                    address, VhostUser.name(reply.request()), reply.size(), bytes));
        }
        return reply;
    }

    private void checkOpen() throws VirtioException {
        VirtioException why = failure.get();
        if (why != null) {
            throw new VirtioException(why.getMessage(), why);
        }
    }

    private VirtioException failed(int request, IOException e) {
        if (e instanceof VirtioException) {
            return fail(address + " sent " + e.getMessage());
        }
        boolean gone =
                e instanceof LinuxException linux
                        && (linux.errno() == Errno.EPIPE || linux.errno() == Errno.ECONNRESET);
        if (gone) {
            return fail("peer closed " + address);
        }
        return fail(
                e instanceof EOFException
                        ? "%s: %s in answer to %s"
                                .formatted(address, e.getMessage(), VhostUser.name(request))
                        : "%s: %s failed: %s"
                                .formatted(address, VhostUser.name(request), e.getMessage()));
    }

    /** Ends the conversation, if it has not ended before; what it has ended by. */
    VirtioException fail(String reason) {
        failure.compareAndSet(null, new VirtioException(reason));
        connection.close();
        return failure.get();
    }

    /** Ends the conversation; a request under way in another thread fails. */
    @Override
    public void close() {
        fail(address + " was closed");
    }

    /** A request that only some back-ends answer was not answered. */
    private static final class NoAnswer extends VirtioException {
        private static final long serialVersionUID = 1L;

        NoAnswer(String message) {
            super(message);
        }
    }
}
