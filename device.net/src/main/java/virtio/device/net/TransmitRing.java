package virtio.device.net;

import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.net.FrameTap;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.util.Objects;

/**
 * A transmit queue with what the device has to send, from DRIVER_OK to the next freeze; used with
 * the pair's lock held.
 */
final class TransmitRing {
    /** Most buffers of a frame. */
    private static final int MAX_PIECES = 64;

    private static final int BURST = 64;

    final Virtqueue vq;
    private final PacketPool pool;
    private final NetLimits limits;
    private final NetCounts counts;
    private final int pair;
    private final int headerBytes;

    /** Whether the header is the short one. */
    private final boolean simple;

    private final int mostPieces;
    private final int mostBytes;
    private final ScatterList elements = new ScatterList(MAX_PIECES);
    private final long[] mapHandles = new long[BURST];
    private final long[] tokens = new long[BURST];
    private final int[] lengths = new int[BURST];

    /** Frames that the device has. */
    private int sending;

    TransmitRing(Virtqueue vq, PacketPool pool, NetLimits limits, NetCounts counts, int pair) {
        this.vq = vq;
        this.pool = pool;
        this.limits = limits;
        this.counts = counts;
        this.pair = pair;
        headerBytes = limits.headerBytes();
        simple = headerBytes == NetHeader.BYTES;
        mostPieces = Math.min(MAX_PIECES, Math.min(vq.maxElements(), vq.size()));
        mostBytes = limits.maxFrameBytes();
    }

    int sending() {
        return sending;
    }

    private void check(PacketBuffer buffer, int i) {
        Packet p = PacketPool.claim(buffer, i);
        boolean segmented = !p.plain() && p.gsoType() != NetHeader.GSO_NONE;
        int most = segmented ? NetHeader.MAX_FRAME_BYTES : mostBytes;
        int bytes = p.length;
        if (p.next != null) {
            int pieces = 1;
            for (Packet piece = p.next; piece != null; piece = piece.next) {
                bytes += piece.length;
                pieces++;
            }
            if (pieces > mostPieces) {
                throw new IllegalArgumentException(
                        "frame %d in %d buffers, the limit is %d".formatted(i, pieces, mostPieces));
            }
        }
        if (bytes < NetConfig.ETHERNET_BYTES || bytes > most) {
            throw new IllegalArgumentException(
                    "frame %d of %d bytes, limits are %d and %d"
                            .formatted(i, bytes, NetConfig.ETHERNET_BYTES, most));
        }
        if (!p.plain()) {
            checkOffloads(p, i, segmented);
        }
    }

    private void checkOffloads(Packet p, int i, boolean segmented) {
        if (p.needsChecksum()) {
            p.checkChecksum();
        }
        if (segmented) {
            int needed =
                    switch (p.gsoType()) {
                        case NetHeader.GSO_TCPV4 -> NetFeature.HOST_TSO4;
                        case NetHeader.GSO_TCPV6 -> NetFeature.HOST_TSO6;
                        case NetHeader.GSO_UDP_L4 -> NetFeature.HOST_USO;
                        default -> -1;
                    };
            if (needed < 0 || !limits.has(needed) || !p.needsChecksum()) {
                throw new IllegalArgumentException(
                        "frame %d with segmentation type %d, which the device does not do%s"
                                .formatted(
                                        i,
                                        p.gsoType(),
                                        p.needsChecksum() ? "" : " without a checksum request"));
            }
            if (p.gsoEcn() && !limits.has(NetFeature.HOST_ECN)) {
                throw new IllegalArgumentException(
                        "frame %d with congestion notification, HOST_ECN is not negotiated"
                                .formatted(i));
            }
            p.headers();
        }
    }

    /**
     * Exposes frames; how many there was room for.
     *
     * @throws IllegalArgumentException when one cannot be sent, and then none was
     */
    int send(PacketBuffer[] frames, int count, FrameTap tap) {
        Objects.checkFromIndexSize(0, count, frames.length);
        boolean usual = simple && tap == null;
        int claimed = 0;
        int sent = 0;
        try {
            while (claimed < count) {
                if (frames[claimed] instanceof Packet p && usual(p)) {
                    p.state = Packet.CLAIMED;
                    claimed++;
                } else {
                    check(frames[claimed], claimed++);
                    usual = false;
                }
            }
            if (vq.free() < count) {
                reclaim();
            }
            if (usual) {
                int room = Math.min(count, vq.free());
                int burst;
                do {
                    burst = sendUsual(frames, sent, Math.min(room - sent, BURST));
                    sent += burst;
                } while (burst == BURST);
            } else {
                while (sent < count && send((Packet) frames[sent], tap)) {
                    sent++;
                }
            }
            return sent;
        } finally {
            PacketPool.unclaim(frames, sent, claimed);
        }
    }

    /** Exposes usual frames, for which there is room; how many, 0 when the queue broke. */
    private int sendUsual(PacketBuffer[] frames, int from, int count) {
        MemorySegment all = pool.all;
        long bytes = 0;
        for (int i = 0; i < count; i++) {
            Packet p = (Packet) frames[from + i];
            int header = p.offset - NetHeader.BYTES;
            all.set(Packet.LONG, p.at + header, Packet.PLAIN);
            all.set(Packet.INT, p.at + header + NetHeader.CSUM_OFFSET, 0);
            mapHandles[i] = p.handle + header;
            lengths[i] = NetHeader.BYTES + p.length;
            tokens[i] = p.id;
            p.state = Packet.POSTED;
            bytes += p.length;
        }
        int sent = vq.addOutMapped(mapHandles, lengths, tokens, count);
        for (int i = sent; i < count; i++) {
            Packet p = (Packet) frames[from + i];
            p.state = Packet.HELD;
            bytes -= p.length;
        }
        sending += sent;
        counts.sentFrames += sent;
        counts.sentBytes += bytes;
        return sent;
    }

    /** Whether a frame is the caller's, in one buffer of today's pool, with nothing to offload. */
    private boolean usual(Packet p) {
        return p.state == Packet.HELD
                && p.pool == pool
                && p.next == null
                && p.plain()
                && p.length >= NetConfig.ETHERNET_BYTES
                && p.length <= mostBytes;
    }

    /** Exposes a checked frame, whatever it is; false when there is no room now. */
    private boolean send(Packet frame, FrameTap tap) {
        Packet p = frame;
        if (p.pool != pool) {
            p = moved(frame);
            if (p == null) {
                return false;
            }
        }
        if (p.needsChecksum() && !limits.has(NetFeature.CSUM)) {
            p.completeChecksum();
        }
        // Neither what was verified on the way in nor what only hints (DRV-NET-016, DRV-NET-046).
        long head = p.needsChecksum() ? p.head & ~(0xFFL & ~NetHeader.F_NEEDS_CSUM) : Packet.PLAIN;
        if ((head & Packet.SEGMENTED) != 0) {
            // Exact with GUEST_HDRLEN (DRV-NET-036), whatever a device said that it came from.
            head =
                    head & ~(0xFFFFL << 8 * NetHeader.HDR_LEN)
                            | (long) p.headers() << 8 * NetHeader.HDR_LEN;
        }
        int at = p.offset - headerBytes;
        p.segment.set(Packet.LONG, at, head);
        p.segment.set(
                Packet.INT, at + NetHeader.CSUM_OFFSET, head == Packet.PLAIN ? 0 : p.csumOffset);
        if (headerBytes == NetHeader.HASH_BYTES) {
            p.segment.set(Packet.LONG, at + NetHeader.HASH_VALUE, 0);
        }
        elements.clear();
        elements.outMapped(p.handle + at, headerBytes + p.length);
        int bytes = p.length;
        for (Packet piece = p.next; piece != null; piece = piece.next) {
            if (piece.length > 0) {
                elements.outMapped(piece.handle + piece.offset, piece.length);
                bytes += piece.length;
            }
        }
        if (!vq.add(elements, p.id)) {
            reclaim();
            if (!vq.add(elements, p.id)) {
                if (p != frame) {
                    PacketPool.putAll(p);
                }
                return false;
            }
        }
        if (p != frame) {
            PacketPool.putAll(frame);
        }
        for (Packet piece = p; piece != null; piece = piece.next) {
            piece.state = Packet.POSTED;
        }
        sending++;
        counts.sentFrames++;
        counts.sentBytes += bytes;
        if (tap != null) {
            tap.frame(pair, false, p);
        }
        return true;
    }

    /** A copy in memory that the device of today sees; null when there is no room now. */
    private Packet moved(Packet frame) {
        Packet first = null;
        Packet last = null;
        for (Packet from = frame; from != null; from = from.next) {
            if (pool.free() == 0) {
                PacketPool.putAll(first);
                return null;
            }
            Packet p = pool.take();
            p.hand();
            p.frame(from.offset, from.length);
            p.segment
                    .asSlice(p.offset, p.length)
                    .copyFrom(from.segment.asSlice(from.offset, from.length));
            p.head = from.head;
            p.csumOffset = from.csumOffset;
            if (first == null) {
                first = p;
            } else {
                last.next = p;
            }
            last = p;
        }
        return first;
    }

    /** Takes back what the device has sent. */
    void reclaim() {
        int count;
        do {
            count = vq.get(tokens, lengths);
            for (int i = 0; i < count; i++) {
                Packet p = pool.slots[(int) tokens[i]];
                if (p.next == null) {
                    pool.put(p);
                } else {
                    PacketPool.putAll(p);
                }
            }
            sending -= count;
        } while (count == BURST);
    }
}
