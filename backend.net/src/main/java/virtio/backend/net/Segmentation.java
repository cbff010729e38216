package virtio.backend.net;

import virtio.api.net.InternetChecksum;
import virtio.api.net.NetHeader;

import java.lang.foreign.MemorySegment;
import java.util.function.Consumer;

/**
 * Segments a frame for who cannot take it whole, as hardware would: TCP over IPv4 and IPv6, and
 * UDP. Not thread-safe; made once and reused.
 *
 * <p>The headers are looked at in the frame itself: {@code hdr_len} is not relied on (DEV-NET-021).
 */
final class Segmentation {
    private static final int IPV4 = 4;
    private static final int TCP = 6;
    private static final int UDP = 17;
    private static final int TCP_SEQUENCE = 4;
    private static final int TCP_OFFSET = 12;
    private static final int TCP_FLAGS = 13;
    private static final int TCP_CHECKSUM = 16;
    private static final int TCP_LEAST = 20;
    private static final int UDP_LENGTH = 4;
    private static final int UDP_CHECKSUM = 6;
    private static final int UDP_BYTES = 8;
    private static final int FIN_PSH = 0x09;
    private static final int CWR = 0x80;

    private final Frame segment = new Frame();

    private static boolean udp(Frame frame) {
        return frame.gsoType() == NetHeader.GSO_UDP_L4;
    }

    /** Bytes of all headers of a frame that is not {@link #bad}, the transport's included. */
    static int headers(Frame frame) {
        int transport = frame.header16(NetHeader.CSUM_START);
        return transport
                + (udp(frame) ? UDP_BYTES : (frame.get8(transport + TCP_OFFSET) >>> 4) * 4);
    }

    /** Why a frame with a checksum in range cannot be segmented; null when it can. */
    static String bad(Frame frame) {
        int type = frame.gsoType();
        if (type != NetHeader.GSO_TCPV4 && type != NetHeader.GSO_TCPV6 && !udp(frame)) {
            return "segmentation of type %d, which is not known".formatted(type);
        }
        int network = frame.ethernetBytes();
        int transport = frame.header16(NetHeader.CSUM_START);
        int least = udp(frame) ? UDP_BYTES : TCP_LEAST;
        if (frame.header16(NetHeader.GSO_SIZE) == 0) {
            return "segmentation into pieces of 0 bytes";
        }
        if (transport < network + 20 || transport + least > frame.length) {
            return "transport header at %d in a frame of %d bytes"
                    .formatted(transport, frame.length);
        }
        int version = frame.get8(network) >>> 4;
        boolean v4 = version == IPV4;
        int protocol = frame.get8(network + (v4 ? 9 : 6));
        boolean fits =
                v4
                        ? transport == network + (frame.get8(network) & 0xF) * 4
                        : version == 6 && transport >= network + 40;
        boolean same =
                switch (type) {
                    case NetHeader.GSO_TCPV4 -> v4 && protocol == TCP;
                    case NetHeader.GSO_TCPV6 -> !v4;
                    default -> !v4 || protocol == UDP;
                };
        int headers = headers(frame);
        if (!fits || !same || headers < transport + least || headers > frame.length) {
            return "segmentation type %d of IP version %d, protocol %d, headers of %d bytes"
                    .formatted(type, version, protocol, headers);
        }
        return frame.header16(NetHeader.CSUM_OFFSET) != (udp(frame) ? UDP_CHECKSUM : TCP_CHECKSUM)
                ? "segmentation with the checksum at %d"
                        .formatted(frame.header16(NetHeader.CSUM_OFFSET))
                : null;
    }

    /** Hands out the segments of a frame that is not {@link #bad}, complete with checksums. */
    void split(Frame frame, Consumer<Frame> to) {
        boolean udp = udp(frame);
        int network = frame.ethernetBytes();
        int transport = frame.header16(NetHeader.CSUM_START);
        int headers = headers(frame);
        int size = frame.header16(NetHeader.GSO_SIZE);
        boolean v4 = frame.get8(network) >>> 4 == IPV4;
        int payload = frame.length - headers;
        int number = 0;
        int at = 0;
        do {
            int part = Math.min(size, payload - at);
            boolean last = at + part == payload;
            segment.length = headers + part;
            segment.plain();
            MemorySegment.copy(frame.memory, Frame.HEADER, segment.memory, Frame.HEADER, headers);
            MemorySegment.copy(
                    frame.memory,
                    Frame.HEADER + headers + at,
                    segment.memory,
                    Frame.HEADER + headers,
                    part);
            network(network, transport, v4, number);
            if (udp) {
                segment.set16(transport + UDP_LENGTH, UDP_BYTES + part);
            } else {
                segment.set32(transport + TCP_SEQUENCE, frame.get32(transport + TCP_SEQUENCE) + at);
                int flags = frame.get8(transport + TCP_FLAGS);
                flags &= last ? ~0 : ~FIN_PSH;
                // Only the first one reports the reduced window (RFC 3168).
                flags &= number > 0 ? ~CWR : ~0;
                segment.set8(transport + TCP_FLAGS, flags);
            }
            checksum(frame, transport, udp);
            to.accept(segment);
            at += part;
            number++;
        } while (at < payload);
    }

    private void network(int network, int transport, boolean v4, int number) {
        if (v4) {
            segment.set16(network + 2, segment.length - network);
            segment.set16(network + 4, segment.get16(network + 4) + number);
            segment.set16(network + 10, 0);
            long sum = segment.sum(network, transport - network, 0);
            segment.set16(network + 10, ~InternetChecksum.fold(sum));
        } else {
            segment.set16(network + 4, segment.length - network - 40);
        }
    }

    /**
     * The frame's field has the sum of the pseudo header (DRV-NET-032), of which only the length
     * changes: where extension headers say other addresses, it has those already.
     */
    private void checksum(Frame frame, int transport, boolean udp) {
        int field = transport + (udp ? UDP_CHECKSUM : TCP_CHECKSUM);
        int bytes = segment.length - transport;
        long before = ~InternetChecksum.fold(frame.length - transport) & 0xFFFF;
        long sum = frame.get16(field) + before + bytes;
        segment.set16(field, 0);
        segment.set16(field, InternetChecksum.complement(segment.sum(transport, bytes, sum)));
    }
}
