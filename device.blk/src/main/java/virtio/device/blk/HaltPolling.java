package virtio.device.blk;

/**
 * Whether somebody who waits looks for completions before going to sleep, as KVM does before it
 * halts a processor: what comes soon then needs neither an interrupt nor a thread to be woken,
 * which cost more than a fast disk does.
 *
 * <p>It begins after some short sleeps in a row, and ends with the first look in vain. The next
 * time takes more short sleeps then, so that neither a slow disk nor one that is served by the same
 * processor costs more than a look now and then. One owner at a time.
 */
final class HaltPolling {
    /** How long to look: about what a wake-up takes at both ends. */
    static final long LOOK_NANOS = 50_000;

    static final int FIRST_PATIENCE = 16;
    static final int LAST_PATIENCE = 4096;

    private boolean looking;
    private int shortSleeps;
    private int patience = FIRST_PATIENCE;

    /** How long to look before the next sleep. */
    long nanos() {
        return looking ? LOOK_NANOS : 0;
    }

    /** A look was not in vain. */
    void found() {
        patience = FIRST_PATIENCE;
    }

    /** A sleep was needed; the wait took so long. */
    void slept(long waitedNanos) {
        shortSleeps = looking || waitedNanos > LOOK_NANOS ? 0 : shortSleeps + 1;
        if (looking) {
            looking = false;
            patience = Math.min(patience * 2, LAST_PATIENCE);
        } else if (shortSleeps == patience) {
            looking = true;
            shortSleeps = 0;
        }
    }
}
