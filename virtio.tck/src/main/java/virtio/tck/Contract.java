package virtio.tck;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioException;

import java.util.Set;

/** What every contract has: a transport, made anew for each test, that leaves nothing behind. */
@Timeout(60)
abstract class Contract {
    private Set<Thread> threadsBefore;
    TransportUnderTest subject;
    private Driven driven;

    /** The transport that the contract is for. */
    protected abstract TransportUnderTest transport() throws Exception;

    @BeforeEach
    void make() throws Exception {
        threadsBefore = Thread.getAllStackTraces().keySet();
        subject = transport();
    }

    /** Both ends, open; closed after the test. */
    Driven drive(TestDevice device) throws VirtioException {
        driven = new Driven(subject, device);
        return driven;
    }

    /** Skips the test where the wire has no word for that. */
    void assumeSaid(TransportUnderTest.Unsaid what) {
        Assumptions.assumeFalse(
                subject.unsaid().contains(what), "the transport's wire has no word for " + what);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        if (driven != null) {
            driven.close();
        }
        subject.close();
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            if (!threadsBefore.contains(thread) && isOurs(thread)) {
                thread.join(TestDevice.AWAIT_MILLIS);
                if (thread.isAlive()) {
                    throw new AssertionError("left behind after close: " + thread);
                }
            }
        }
    }

    /** Threads of the JVM come and go in groups of their own. */
    private static boolean isOurs(Thread thread) {
        ThreadGroup group = thread.getThreadGroup();
        return group != null
                && group.getName().equals("main")
                && !thread.getName().startsWith("junit-");
    }
}
