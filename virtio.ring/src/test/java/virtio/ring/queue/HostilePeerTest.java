package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Both ends of a ring against memory that somebody else writes as well.
 *
 * <pre>
 * mvn -pl virtio.ring -am verify -Dtest=HostilePeerTest -Dsurefire.failIfNoSpecifiedTests=false
 *     -Dfuzz.seconds=600            a long run; from another seed on with -Dfuzz.from=N
 *     -Dfuzz.seed=N                 the run that failed, alone
 * </pre>
 */
class HostilePeerTest {
    private static final long SECONDS = Long.getLong("fuzz.seconds", 3);

    /** For what would go on for ever; no run of those that end comes near. */
    private static final long HANGS_AFTER_SECONDS = 120;

    @TempDir Path folder;

    private final Map<String, Integer> breaks = new TreeMap<>();
    private long runs;

    /** Strikes come between steps and in the middle of them: the same ones for the same seed. */
    @Test
    @Tag("DRV-SPLIT-017")
    @Tag("DEV-SPLIT-001")
    void writesAtAnyPointOfAStepHarmNobody() throws Exception {
        fuzz(null);
    }

    /** Strikes come at any time from a thread of their own, which no seed brings back. */
    @Test
    void writesAtAnyTimeHarmNobody() throws Exception {
        AtomicLong stopped = new AtomicLong();
        fuzz(
                new HostilePeer.Alongside() {
                    private volatile boolean stop;

                    @Override
                    public Thread start(Striker striker) {
                        stop = false;
                        return Thread.ofPlatform()
                                .start(
                                        () -> {
                                            ScopedValue.where(LiveMemory.HOSTILE, true)
                                                    .run(() -> strikeOn(striker));
                                            stopped.incrementAndGet();
                                        });
                    }

                    private void strikeOn(Striker striker) {
                        while (!stop) {
                            striker.strike();
                        }
                    }

                    @Override
                    public void stop(Thread thread) throws InterruptedException {
                        stop = true;
                        thread.join();
                    }
                });
        assertTrue(stopped.get() == runs, "the strikes failed: see above");
    }

    private void fuzz(HostilePeer.Alongside alongside) throws Exception {
        Long only = Long.getLong("fuzz.seed");
        long from = Long.getLong("fuzz.from", 0);
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS);
        try (GuardedMemory memory = new GuardedMemory(folder)) {
            if (only != null) {
                run(memory, only, alongside);
                return;
            }
            for (long seed = from; System.nanoTime() < until; seed++) {
                run(memory, seed, alongside);
            }
        }
        System.out.println(runs + " rings; " + breaks);
    }

    private void run(GuardedMemory memory, long seed, HostilePeer.Alongside alongside)
            throws Exception {
        Throwable[] failure = new Throwable[1];
        HostilePeer peer = new HostilePeer(memory, new SplittableRandom(seed).nextLong());
        Thread thread =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        peer.run(alongside);
                                    } catch (Throwable e) {
                                        failure[0] = e;
                                    }
                                });
        thread.join(TimeUnit.SECONDS.toMillis(HANGS_AFTER_SECONDS));
        String again = "again with -Dfuzz.seed=" + seed;
        if (thread.isAlive()) {
            AssertionError hangs = new AssertionError("hangs: " + again);
            hangs.setStackTrace(thread.getStackTrace());
            throw hangs;
        }
        if (failure[0] != null) {
            throw new AssertionError(failure[0] + ": " + again, failure[0]);
        }
        runs++;
        peer.breaks.forEach((reason, count) -> breaks.merge(reason, count, Integer::sum));
    }
}
