package virtio.device.net;

import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.net.DropReason;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;

/**
 * A receive queue with the buffers that the device has, from DRIVER_OK to the next freeze; used
 * with the pair's lock held.
 *
 * <p>What the device says about a frame is read once and checked; a frame that is not good goes
 * back to the pool and is counted.
 */
final class ReceiveRing {
    /** Most receive buffers, where each is made of several. */
    private static final int MAX_LARGE = 64;

    private static final int BURST = 64;

    /** The device is not told of fewer buffers than that, unless it is short of them. */
    static final int REFILL = 32;

    final Virtqueue vq;
    private final PacketPool pool;
    private final NetLimits limits;
    private final NetCounts counts;
    private final int headerBytes;
    private final int headerAt;

    /** Buffers of the pool that one receive buffer takes. */
    private final int each;

    private final int mostPosted;
    private final boolean mergeable;
    private final ScatterList elements;
    private final long[] tokens = new long[BURST];
    private final int[] lengths = new int[BURST];
    private int at;
    private int ready;

    /** Receive buffers that the device has. */
    private int posted;

    ReceiveRing(Virtqueue vq, PacketPool pool, NetLimits limits, NetCounts counts) {
        this.vq = vq;
        this.pool = pool;
        this.limits = limits;
        this.counts = counts;
        headerBytes = limits.headerBytes();
        headerAt = PacketBuffer.HEADROOM - headerBytes;
        each = limits.buffersEach();
        mostPosted = mostPosted(vq, each);
        mergeable = limits.has(NetFeature.MRG_RXBUF);
        elements = new ScatterList(each);
    }

    static int mostPosted(Virtqueue vq, int each) {
        if (each == 1) {
            return vq.size();
        }
        boolean indirect = vq.maxElements() > vq.size();
        return Math.max(1, Math.min(MAX_LARGE, indirect ? vq.size() : vq.size() / each));
    }

    /** The next good frame; null when there is none. */
    Packet nextFrame() {
        while (at != ready || moreUsed()) {
            int used = lengths[at];
            Packet p = pool.slots[(int) tokens[at++]];
            posted--;
            if (used < headerBytes + NetConfig.ETHERNET_BYTES) {
                drop(p, DropReason.SHORT);
                continue;
            }
            // Read once: the device can change them.
            long head = p.segment.get(Packet.LONG, headerAt);
            int tail = p.segment.get(Packet.INT, headerAt + NetHeader.CSUM_OFFSET);
            p.offset = PacketBuffer.HEADROOM;
            if (each == 1) {
                p.length = used - headerBytes;
            } else {
                spread(p, used - headerBytes);
            }
            if (mergeable && tail >>> 16 != 1 && !gather(p, tail >>> 16)) {
                continue;
            }
            if ((head & 0xFFFF) == 0) {
                p.head = Packet.PLAIN;
            } else if (!offloads(p, head, tail & 0xFFFF)) {
                continue;
            }
            if (headerBytes == NetHeader.HASH_BYTES) {
                p.hash = p.segment.get(Packet.INT, headerAt + NetHeader.HASH_VALUE);
                p.hashType = p.segment.get(Packet.INT, headerAt + NetHeader.HASH_TYPE) & 0xFFFF;
            }
            return p;
        }
        return null;
    }

    private boolean moreUsed() {
        at = 0;
        ready = vq.get(tokens, lengths);
        return ready != 0;
    }

    /** Says where a frame lies in a receive buffer of several, and gives back what it left over. */
    private static void spread(Packet first, int bytes) {
        int left = bytes;
        Packet p = first;
        while (true) {
            p.offset = PacketBuffer.HEADROOM;
            p.length = Math.min(left, PacketPool.DATA_BYTES);
            left -= p.length;
            if (left == 0) {
                break;
            }
            p = p.next;
        }
        Packet rest = p.next;
        p.next = null;
        PacketPool.putAll(rest);
    }

    /** Chains the other buffers of a frame (5.1.6.4); false when it was dropped. */
    private boolean gather(Packet first, int buffers) {
        // At least that many are used at once (DEV-NET-032).
        if (buffers == 0 || buffers > posted + 1) {
            drop(first, DropReason.NUM_BUFFERS);
            return false;
        }
        long total = first.length;
        Packet last = first;
        for (int i = 1; i < buffers; i++) {
            if (at == ready && !moreUsed()) {
                drop(first, DropReason.NUM_BUFFERS);
                return false;
            }
            int used = lengths[at];
            Packet p = pool.slots[(int) tokens[at++]];
            posted--;
            p.offset = headerAt;
            p.length = used;
            total += used;
            last.next = p;
            last = p;
        }
        if (total > NetHeader.MAX_FRAME_BYTES) {
            drop(first, DropReason.LONG);
            return false;
        }
        return true;
    }

    /** Takes over the metadata, checked; false when the frame was dropped. */
    private boolean offloads(Packet p, long head, int csumOffset) {
        int known = NetHeader.F_NEEDS_CSUM | NetHeader.F_DATA_VALID;
        boolean guestChecksum = limits.has(NetFeature.GUEST_CSUM);
        boolean partial = (head & NetHeader.F_NEEDS_CSUM) != 0;
        int gso = (int) (head >>> 8) & 0xFF & ~NetHeader.GSO_ECN;
        boolean allowed =
                switch (gso) {
                    case NetHeader.GSO_NONE -> true;
                    case NetHeader.GSO_TCPV4 -> limits.has(NetFeature.GUEST_TSO4);
                    case NetHeader.GSO_TCPV6 -> limits.has(NetFeature.GUEST_TSO6);
                    case NetHeader.GSO_UDP_L4 ->
                            limits.has(NetFeature.GUEST_USO4) || limits.has(NetFeature.GUEST_USO6);
                    default -> false;
                };
        boolean sized = (head >>> 8 * NetHeader.GSO_SIZE & 0xFFFF) != 0;
        if (!allowed
                || partial && !guestChecksum
                || gso != NetHeader.GSO_NONE && !(partial && sized)) {
            drop(p, DropReason.OFFLOAD);
            return false;
        }
        p.head = head & (guestChecksum ? known : 0);
        p.csumOffset = 0;
        if (partial) {
            p.head |= head & 0xFFFFL << 8 * NetHeader.CSUM_START;
            p.csumOffset = csumOffset;
            if (p.checksumStart() + csumOffset + Short.BYTES > p.frameLength()) {
                drop(p, DropReason.CHECKSUM_RANGE);
                return false;
            }
        }
        if (gso != NetHeader.GSO_NONE) {
            p.head |= head & 0x0000_FFFF_FFFF_FF00L;
        }
        return true;
    }

    private void drop(Packet p, DropReason reason) {
        counts.drop(reason, 1);
        PacketPool.putAll(p);
    }

    /** Gives the device buffers to receive into, when there is room for that many. */
    void refill(int least) {
        int room = mostPosted - posted;
        if (room < Math.min(least, Math.max(1, mostPosted / 4))) {
            return;
        }
        boolean added = false;
        while (room > 0 && pool.free() >= each && post()) {
            room--;
            added = true;
        }
        if (room > 0 && pool.free() < each) {
            counts.noBuffers++;
        }
        if (added && vq.kickPrepare()) {
            vq.notifyDevice();
        }
    }

    private boolean post() {
        Packet first = pool.take();
        first.state = Packet.POSTED;
        elements.clear();
        elements.inMapped(first.handle + headerAt, headerBytes + PacketPool.DATA_BYTES);
        Packet last = first;
        for (int i = 1; i < each; i++) {
            Packet p = pool.take();
            p.state = Packet.POSTED;
            elements.inMapped(p.handle + PacketBuffer.HEADROOM, PacketPool.DATA_BYTES);
            last.next = p;
            last = p;
        }
        if (!vq.add(elements, first.id)) {
            PacketPool.putAll(first);
            return false;
        }
        posted++;
        return true;
    }
}
