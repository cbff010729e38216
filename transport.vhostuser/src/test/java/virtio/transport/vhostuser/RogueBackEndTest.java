package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.VirtioException;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** The front-end against back-ends that break the protocol. */
class RogueBackEndTest {
    private static final long ALL =
            1L << VhostUser.PROTOCOL_F_MQ
                    | 1L << VhostUser.PROTOCOL_F_REPLY_ACK
                    | 1L << VhostUser.PROTOCOL_F_BACKEND_REQ
                    | 1L << VhostUser.PROTOCOL_F_CONFIG
                    | 1L << VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS;
    private static final int TIMEOUT_MILLIS = 300;

    @TempDir Path folder;
    private Path socket;
    private List<Integer> before;

    @BeforeEach
    void remember() {
        socket = folder.resolve("x.sock");
        before = Peers.live();
    }

    @AfterEach
    void nothingIsLeft() {
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    private static RogueBackEnd.Script on(int request, RogueBackEnd.Script script) {
        return (message, connection) ->
                message.request() == request && script.answer(message, connection);
    }

    /** Answers that request with something else. */
    private static RogueBackEnd.Script with(int request, ByteBuffer payload) {
        return on(
                request,
                (message, connection) -> {
                    RogueBackEnd.reply(message, connection, payload);
                    return true;
                });
    }

    private static Arguments deed(String sentence, RogueBackEnd.Script script) {
        return Arguments.of(sentence, script);
    }

    static Stream<Arguments> deeds() {
        return Stream.of(
                deed(
                        "answered GET_FEATURES with SET_FEATURES, flags 0x5",
                        on(
                                VhostUser.GET_FEATURES,
                                (message, connection) -> {
                                    connection.send(
                                            VhostUser.SET_FEATURES,
                                            VhostUser.REPLY,
                                            Message.u64(0),
                                            1000);
                                    return true;
                                })),
                deed(
                        "answered GET_FEATURES with GET_FEATURES, flags 0x1",
                        on(
                                VhostUser.GET_FEATURES,
                                (message, connection) -> {
                                    connection.send(
                                            VhostUser.GET_FEATURES, 0, Message.u64(0), 1000);
                                    return true;
                                })),
                deed(
                        "answered GET_FEATURES with 4 bytes, 8 are due",
                        with(VhostUser.GET_FEATURES, Message.payload(4))),
                deed(
                        "answered GET_PROTOCOL_FEATURES with 4096 bytes",
                        with(VhostUser.GET_PROTOCOL_FEATURES, Message.payload(4096))),
                deed(
                        "no answer to GET_PROTOCOL_FEATURES in 300 ms",
                        on(VhostUser.GET_PROTOCOL_FEATURES, (message, connection) -> true)),
                deed("has 0 memory slots", with(VhostUser.GET_MAX_MEM_SLOTS, Message.u64(0))),
                deed("has -1 memory slots", with(VhostUser.GET_MAX_MEM_SLOTS, Message.u64(-1))),
                deed("has 0 queues", with(VhostUser.GET_QUEUE_NUM, Message.u64(0))),
                deed("refused SET_OWNER (1)", with(VhostUser.SET_OWNER, Message.u64(1))),
                deed(
                        "peer closed",
                        on(
                                VhostUser.SET_OWNER,
                                (message, connection) -> {
                                    connection.close();
                                    return true;
                                })),
                deed(
                        "payload of 5000 bytes, limit is 4096",
                        on(
                                VhostUser.GET_FEATURES,
                                (message, connection) -> {
                                    send(connection, VhostUser.GET_FEATURES, 5, 5000);
                                    return true;
                                })),
                deed(
                        "GET_FEATURES without its payload of 8 bytes",
                        on(
                                VhostUser.GET_FEATURES,
                                (message, connection) -> {
                                    send(connection, VhostUser.GET_FEATURES, 5, 8);
                                    connection.close();
                                    return true;
                                })),
                deed(
                        "a message cut off",
                        on(
                                VhostUser.GET_FEATURES,
                                (message, connection) -> {
                                    send(connection, VhostUser.GET_FEATURES, 5, 8);
                                    return true;
                                })));
    }

    private static void send(Connection connection, int... words) throws IOException {
        ByteBuffer bytes = Message.payload(4 * words.length);
        for (int word : words) {
            bytes.putInt(word);
        }
        connection.file().write(Message.natively(bytes));
    }

    private VhostUserTransport open() throws VirtioException {
        return new VhostUserTransport(
                new VhostUserProvider.Device(
                        "vhost-user:" + socket, socket, 0, 1 << 20, 4096, TIMEOUT_MILLIS));
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("deeds")
    void isNotOpenedAndTheReasonIsSaid(String sentence, RogueBackEnd.Script script)
            throws Exception {
        try (RogueBackEnd _ = new RogueBackEnd(socket, ALL, script)) {
            VirtioException e = assertThrows(VirtioException.class, this::open);
            assertTrue(e.getMessage().contains(sentence), e.getMessage());
            assertTrue(e.getMessage().contains(socket.toString()), e.getMessage());
        }
    }

    @Test
    void queueNumberUnansweredMeansOneQueueAndALateAnswerDoesNoHarm() throws Exception {
        Message[] late = new Message[1];
        RogueBackEnd.Script script =
                (message, connection) -> {
                    if (message.request() == VhostUser.GET_QUEUE_NUM) {
                        late[0] = message;
                        return true;
                    }
                    if (late[0] != null) {
                        RogueBackEnd.reply(late[0], connection, Message.u64(7));
                        late[0] = null;
                    }
                    return false;
                };
        try (RogueBackEnd _ = new RogueBackEnd(socket, ALL, script);
                VhostUserTransport transport = open()) {
            assertEquals(1024, transport.maxQueueSize(0));
            assertEquals(0, transport.maxQueueSize(1));
            transport.readConfig(0, new byte[8]);
            transport.readConfig(8, new byte[8]);
        }
    }

    @Test
    void unwantedDescriptorsAreClosed() throws Exception {
        try (EventFd unwanted = EventFd.create();
                RogueBackEnd _ =
                        new RogueBackEnd(
                                socket,
                                ALL,
                                on(
                                        VhostUser.GET_CONFIG,
                                        (message, connection) -> {
                                            RogueBackEnd.reply(
                                                    message,
                                                    connection,
                                                    message.payload(),
                                                    unwanted.file(),
                                                    unwanted.file());
                                            return true;
                                        }));
                VhostUserTransport transport = open()) {
            int open = FileDescriptor.live();
            transport.readConfig(0, new byte[8]);
            assertEquals(open, FileDescriptor.live());
        }
    }

    @Test
    void aWrongRingInTheAnswerEndsTheConversation() throws Exception {
        try (RogueBackEnd _ =
                        new RogueBackEnd(
                                socket, ALL, with(VhostUser.GET_VRING_BASE, Message.state(3, 0)));
                TinyDisk disk = new TinyDisk(open())) {
            VirtioException e =
                    assertThrows(VirtioException.class, () -> disk.transport.stopQueue(0));
            assertTrue(
                    e.getMessage().contains("GET_VRING_BASE of queue 0 for queue 3"),
                    e.getMessage());
            assertEquals(e.getMessage(), disk.awaitGone());
        }
    }

    @Test
    void nonsenseOnTheBackChannelEndsTheConversation() throws Exception {
        try (RogueBackEnd rogue = new RogueBackEnd(socket, ALL, (message, connection) -> false);
                TinyDisk disk = new TinyDisk(open())) {
            ByteBuffer unknown = Message.payload(12).putInt(99).putInt(1).putInt(0);
            rogue.channel().write(Message.natively(unknown));
            ByteBuffer change = Message.payload(12).putInt(2).putInt(1).putInt(0);
            rogue.channel().write(Message.natively(change));
            disk.configChanges.acquire();
            ByteBuffer huge = Message.payload(12).putInt(2).putInt(1).putInt(1 << 30);
            rogue.channel().write(Message.natively(huge));
            String reason = disk.awaitGone();
            assertTrue(reason.contains("1073741824 bytes, limit is 4096"), reason);
        }
    }

    @Test
    void resetOfABackEndThatHangsIsBounded() throws Exception {
        try (RogueBackEnd _ =
                        new RogueBackEnd(
                                socket,
                                ALL,
                                on(VhostUser.GET_VRING_BASE, (message, connection) -> true));
                TinyDisk disk = new TinyDisk(open())) {
            VirtioException e = assertThrows(VirtioException.class, () -> disk.transport.status(0));
            assertTrue(
                    e.getMessage().contains("no answer to GET_VRING_BASE in 300 ms"),
                    e.getMessage());
            assertEquals(e.getMessage(), disk.awaitGone());
        }
    }
}
