package virtio.device.net;

import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.net.DropReason;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

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

    /** Whether a frame can be one buffer with nothing more to look at than its header. */
    private final boolean simple;

    private final ScatterList elements;
    private final long[] tokens = new long[BURST];
    private final int[] lengths = new int[BURST];

    // The headers of what was used, read once: the device can change them.
    private final long[] heads = new long[BURST];
    private final int[] tails = new int[BURST];
    private int at;
    private int ready;

    // What is about to be posted: tokens and lengths may hold what was not looked at yet.
    private final long[] postHandles = new long[BURST];
    private final int[] postLengths = new int[BURST];
    private final long[] postTokens = new long[BURST];

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
        simple = each == 1 && headerBytes == NetHeader.BYTES;
        elements = new ScatterList(each);
        Arrays.fill(postLengths, headerBytes + PacketPool.DATA_BYTES);
    }

    static int mostPosted(Virtqueue vq, int each) {
        if (each == 1) {
            return vq.size();
        }
        boolean indirect = vq.maxElements() > vq.size();
        return Math.max(1, Math.min(MAX_LARGE, indirect ? vq.size() : vq.size() / each));
    }

    /** The next good frame, not the consumer's yet and not counted; null when there is none. */
    Packet nextFrame() {
        Packet p = null;
        while (p == null && (at != ready || moreUsed())) {
            p = next();
        }
        return p;
    }

    /** Gives the consumer good frames, stored from an index on; where it came to. */
    int frames(PacketBuffer[] into, int from) {
        int stored = from;
        long bytes = 0;
        while (stored < into.length && (at != ready || moreUsed())) {
            int end = Math.min(ready, at + into.length - stored);
            int i = at;
            for (; i < end; i++) {
                int length = lengths[i] - headerBytes;
                boolean plain = (heads[i] & 0xFFFF) == 0 && (tails[i] >>> 16 == 1 || !mergeable);
                if (!plain || !simple || length < NetConfig.ETHERNET_BYTES) {
                    break;
                }
                Packet p = pool.slots[(int) tokens[i]];
                p.offset = PacketBuffer.HEADROOM;
                p.length = length;
                p.head = Packet.PLAIN;
                p.state = Packet.HELD;
                bytes += length;
                into[stored++] = p;
            }
            posted -= i - at;
            at = i;
            if (i < end) {
                Packet p = next();
                if (p != null) {
                    bytes += p.hold();
                    into[stored++] = p;
                }
            }
        }
        counts.receivedFrames += stored - from;
        counts.receivedBytes += bytes;
        return stored;
    }

    /** The next frame, if it is a good one; null when it was dropped. */
    private Packet next() {
        int i = at++;
        posted--;
        Packet p = pool.slots[(int) tokens[i]];
        return good(p, lengths[i] - headerBytes, heads[i], tails[i]) ? p : null;
    }

    /** Whether that is a good frame; else it was dropped. */
    private boolean good(Packet p, int bytes, long head, int tail) {
        if (bytes < NetConfig.ETHERNET_BYTES) {
            drop(p, DropReason.SHORT);
            return false;
        }
        p.offset = PacketBuffer.HEADROOM;
        if (each == 1) {
            p.length = bytes;
        } else {
            spread(p, bytes);
        }
        if (mergeable && tail >>> 16 != 1 && !gather(p, tail >>> 16)) {
            return false;
        }
        if ((head & 0xFFFF) == 0) {
            p.head = Packet.PLAIN;
        } else if (!offloads(p, head, tail & 0xFFFF)) {
            return false;
        }
        if (headerBytes == NetHeader.HASH_BYTES) {
            hash(p);
        }
        return true;
    }

    private boolean moreUsed() {
        at = 0;
        ready = vq.get(tokens, lengths);
        // The device wrote the headers, so each is a cache miss: here, with nothing in between,
        // the processor waits for many of them at once.
        MemorySegment all = pool.all;
        for (int i = 0; i < ready; i++) {
            long header = tokens[i] * PacketPool.SLOT_BYTES + headerAt;
            heads[i] = all.get(Packet.LONG, header);
            tails[i] = all.get(Packet.INT, header + NetHeader.CSUM_OFFSET);
        }
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
            Packet p = pool.slots[(int) tokens[at]];
            p.offset = headerAt;
            p.length = lengths[at++];
            posted--;
            total += p.length;
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

    /** Takes over what was hashed, or nothing of it. */
    private void hash(Packet p) {
        p.hash = p.segment.get(Packet.INT, headerAt + NetHeader.HASH_VALUE);
        p.hashReport = p.segment.get(Packet.INT, headerAt + NetHeader.HASH_TYPE) & 0xFFFF;
        if (p.hashReport > HashType.MAX_REPORT) {
            p.hash = 0;
            p.hashReport = 0;
            counts.badHashes++;
        }
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
        int wanted = Math.min(room, pool.free() / each);
        if (wanted < room) {
            counts.noBuffers++;
        }
        int added = 0;
        if (each == 1) {
            int burst;
            do {
                burst = post(Math.min(wanted - added, BURST));
                added += burst;
            } while (burst == BURST);
        } else {
            while (added < wanted && postSeveral()) {
                added++;
            }
        }
        posted += added;
        if (added > 0 && vq.kickPrepare()) {
            vq.notifyDevice();
        }
    }

    /** Posts so many buffers of the pool, which has them; how many there was room for. */
    private int post(int count) {
        for (int i = 0; i < count; i++) {
            Packet p = pool.take();
            postHandles[i] = p.handle + headerAt;
            postTokens[i] = p.id;
            p.state = Packet.POSTED;
        }
        int posted = vq.addInMapped(postHandles, postLengths, postTokens, count);
        for (int i = posted; i < count; i++) {
            pool.put(pool.slots[(int) postTokens[i]]);
        }
        return posted;
    }

    private boolean postSeveral() {
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
        return true;
    }
}
