package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

/** The device's end of a packed virtqueue (virtio 2.8). */
final class PackedDeviceEnd extends PackedDeviceRing {
    /** The first of the used buffers of which the driver is not told yet; its word comes last. */
    private boolean inBurst;

    private long heldAt;
    private long heldWord;

    PackedDeviceEnd(
            int index, QueueLayout layout, Features features, DriverMemory memory, Export export)
            throws VirtioException {
        super(index, layout, features, memory, export);
    }

    @Override
    public boolean next(Chain into) {
        RingChain chain = open(into);
        int takes = takes();
        if (takes != PLAIN) {
            return takes != NOTHING && takeTracked(chain);
        }
        long word = availableWord();
        return PackedRing.matches(word, availableFlags)
                && take(chain, word)
                && (turns == null || takeTurn(chain));
    }

    @Override
    public int next(Chain[] into, int count) {
        if (takes() != PLAIN) {
            return super.next(into, count);
        }
        int taken = 0;
        int most;
        int ready;
        int plain;
        do {
            most = Math.min(count - taken, size - availableSlot);
            ready = PackedRing.ready(word(availableSlot), availableFlags, most);
            plain = takeRun(into, taken, ready);
            taken += plain;
            if (plain < ready) {
                // Of several descriptors, or not acceptable.
                RingChain chain = open(into[taken]);
                if (!serving()
                        || !take(chain, RingMemory.get64(word(availableSlot)))
                        || turns != null && !takeTurn(chain)) {
                    return taken;
                }
                taken++;
            }
        } while (taken < count && (plain < ready || ready == most));
        return taken;
    }

    /** Takes buffers of one descriptor each, up to the end of the ring, as long as all is well. */
    private int takeRun(Chain[] into, int from, int most) {
        long descriptors = descriptor(availableSlot);
        int taken = 0;
        while (taken < most) {
            RingChain chain = (RingChain) into[from + taken];
            long descriptor = descriptors + (long) Descriptor.BYTES * taken;
            if (chain.key != key
                    || !takeOne(
                            chain,
                            RingMemory.get64(descriptor),
                            RingMemory.get64(descriptor + PackedRing.WORD))
                    || turns != null && !takeTurn(chain)) {
                break;
            }
            taken++;
        }
        advance(taken);
        return taken;
    }

    private boolean takeTracked(RingChain chain) {
        boolean taken;
        if (inflight != null && inflight.pending()) {
            taken = resubmit(chain, inflight.resubmit());
        } else {
            long word = availableWord();
            taken = PackedRing.matches(word, availableFlags) && take(chain, word);
        }
        return taken && (turns == null || takeTurn(chain));
    }

    private boolean take(RingChain chain, long word) {
        long handle = RingMemory.get64(descriptor(availableSlot));
        if (takeOne(chain, handle, word)) {
            advance(1);
            return inflight == null || track(chain, handle, word);
        }
        chain.reset(PackedRing.id(word));
        if (!walk(chain, handle, word)) {
            return false;
        }
        if (inflight != null) {
            inflight.took(chain.id());
        }
        return opened(chain);
    }

    /** Takes a buffer of one descriptor in one piece of memory; false when it is another one. */
    private boolean takeOne(RingChain chain, long handle, long word) {
        long length = word & BYTES;
        int flags = flags(word);
        if ((flags & (Descriptor.NEXT | Descriptor.INDIRECT)) != 0 || !sane(handle, length)) {
            return false;
        }
        long address = memory.translate(handle, length, (flags & Descriptor.WRITE) != 0);
        if (address == DriverMemory.FAULT) {
            return false;
        }
        chain.only(word, address);
        return opened(chain);
    }

    private boolean track(RingChain chain, long handle, long word) {
        if (!note(handle, word)) {
            chain.key = key;
            return false;
        }
        inflight.took(chain.id());
        return true;
    }

    private boolean note(long handle, long word) {
        return inflight.copy(handle, word)
                || breakQueue(
                        "more descriptors outstanding than %d, which is the limit".formatted(size));
    }

    /** Takes a buffer that an earlier life had taken; the ring may not have it any more. */
    private boolean resubmit(RingChain chain, int head) {
        chain.reset(0);
        int descriptors = inflight.num(head);
        for (int i = 0, at = head; i < descriptors; i++, at = inflight.following(at)) {
            long handle = inflight.handle(at);
            long word = inflight.word(at);
            int flags = flags(word);
            chain.identify(PackedRing.id(word), descriptors);
            boolean good =
                    (flags & Descriptor.INDIRECT) != 0
                            ? alone(descriptors == 1)
                                    && walkTable(chain, handle, word & 0xFFFFFFFFL)
                            : element(
                                    chain,
                                    handle,
                                    word & 0xFFFFFFFFL,
                                    (flags & Descriptor.WRITE) != 0);
            if (!good) {
                return false;
            }
        }
        inflight.own(chain.id(), head);
        return opened(chain);
    }

    private boolean alone(boolean alone) {
        return alone || breakQueue("a descriptor with both INDIRECT and NEXT");
    }

    private boolean walk(RingChain chain, long firstHandle, long firstWord) {
        long handle = firstHandle;
        long word = firstWord;
        for (int count = 1; ; count++) {
            advance(1);
            int flags = flags(word);
            long length = word & 0xFFFFFFFFL;
            boolean last = (flags & Descriptor.NEXT) == 0;
            if (inflight != null && !note(handle, word)) {
                return false;
            }
            if ((flags & Descriptor.INDIRECT) != 0) {
                return alone(last && count == 1) && walkTable(chain, handle, length);
            }
            if (!element(chain, handle, length, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
            if (last) {
                // The id of a list is that of its last descriptor (virtio 2.8.6).
                chain.identify(PackedRing.id(word), count);
                return true;
            }
            if (count == size) {
                return breakQueue(
                        "chain of more than %d descriptors, which is the limit".formatted(size));
            }
            handle = RingMemory.get64(descriptor(availableSlot));
            word = RingMemory.get64(word(availableSlot));
        }
    }

    private boolean walkTable(RingChain chain, long table, long bytes) {
        if (!table(table, bytes)) {
            return false;
        }
        long whole = memory.translate(table, bytes, false);
        for (long at = 0; at < bytes; at += Descriptor.BYTES) {
            long descriptor =
                    whole != DriverMemory.FAULT
                            ? whole + at
                            : memory.translate(table + at, Descriptor.BYTES, false);
            if (descriptor == DriverMemory.FAULT) {
                return fault(table + at, Descriptor.BYTES, false);
            }
            long handle = RingMemory.get64(descriptor);
            long word = RingMemory.get64(descriptor + PackedRing.WORD);
            int flags = flags(word);
            if ((flags & Descriptor.INDIRECT) != 0) {
                return breakQueue("an indirect descriptor within an indirect table");
            }
            if (!element(chain, handle, word & 0xFFFFFFFFL, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
        }
        return true;
    }

    @Override
    public void complete(Chain done, long written) {
        RingChain chain = (RingChain) done;
        close(chain, written);
        long length = Math.min(written, BYTES);
        if (uses() == PLAIN && turns == null) {
            RingMemory.setRelease64(word(usedSlot), usedWord(chain.id(), length, usedFlags));
            passUsed(chain.descriptors());
        } else if (serving()) {
            useTracked(chain, length);
        }
    }

    @Override
    void usePlain(Chain[] chains, long[] written, int count) {
        // All of them first: nothing is written when one is not acceptable.
        for (int i = 0; i < count; i++) {
            close((RingChain) chains[i], written[i]);
        }
        if (count == 0) {
            return;
        }
        // Comes last: the driver looks no further as long as this one is not used.
        RingChain first = (RingChain) chains[0];
        long firstAt = word(usedSlot);
        long firstWord = usedWord(first, written[0], usedFlags);
        passUsed(first.descriptors());
        int done = 1;
        while (done < count) {
            int most = Math.min(count - done, size - usedSlot);
            int run = useRun(chains, written, done, most);
            passUsed(run);
            done += run;
            if (run < most) {
                RingChain chain = (RingChain) chains[done];
                RingMemory.set64(word(usedSlot), usedWord(chain, written[done], usedFlags));
                passUsed(chain.descriptors());
                done++;
            }
        }
        RingMemory.setRelease64(firstAt, firstWord);
    }

    /** Uses buffers of one descriptor each until there is another one; how many. */
    private int useRun(Chain[] chains, long[] written, int from, int most) {
        long words = word(usedSlot);
        int flags = usedFlags;
        int used = 0;
        for (; used < most; used++) {
            RingChain chain = (RingChain) chains[from + used];
            if (!chain.single()) {
                break;
            }
            RingMemory.set64(
                    words + (long) Descriptor.BYTES * used,
                    usedWord(chain, written[from + used], flags));
        }
        return used;
    }

    private static long usedWord(RingChain chain, long written, int usedFlags) {
        return usedWord(chain.id(), Math.min(written, BYTES), usedFlags);
    }

    private static long usedWord(int id, long length, int usedFlags) {
        int flags = usedFlags | (length > 0 ? Descriptor.WRITE : 0);
        return PackedRing.word(length, id, flags);
    }

    @Override
    void use(int id, int descriptors, long length) {
        if (inflight != null) {
            inflight.using(id, descriptors);
        }
        long at = word(usedSlot);
        long word = usedWord(id, length, usedFlags);
        if (inBurst && heldAt == 0) {
            heldAt = at;
            heldWord = word;
        } else {
            RingMemory.setRelease64(at, word);
            if (inflight != null && !inBurst) {
                inflight.published();
            }
        }
        passUsed(descriptors);
    }

    @Override
    void beginBurst() {
        inBurst = true;
        heldAt = 0;
    }

    @Override
    void publish() {
        inBurst = false;
        if (heldAt != 0) {
            RingMemory.setRelease64(heldAt, heldWord);
            if (inflight != null) {
                inflight.published();
            }
        }
    }
}
