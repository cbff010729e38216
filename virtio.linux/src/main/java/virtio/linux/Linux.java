package virtio.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Optional;

/** What this machine allows, and the calling thread's place among others on it. */
public final class Linux {
    private static final int R_OK_W_OK = 4 | 2;
    private static final int CPU_SETSIZE = 1024;

    /** Found once: the JVM says why a class did not load the first time only. */
    private static final Optional<String> UNAVAILABLE = probe();

    private Linux() {}

    /** Why nothing in this package can work here; empty when it can. */
    public static Optional<String> unavailable() {
        return UNAVAILABLE;
    }

    private static Optional<String> probe() {
        String os = System.getProperty("os.name");
        String arch = System.getProperty("os.arch");
        if (!os.equals("Linux")) {
            return Optional.of("operating system " + os + ": Linux is needed");
        }
        if (!(arch.equals("amd64") || arch.equals("aarch64"))
                || ByteOrder.nativeOrder() != ByteOrder.LITTLE_ENDIAN) {
            return Optional.of("processor " + arch + ": amd64 or aarch64 is needed");
        }
        try {
            LibC.getpagesize();
            return Optional.empty();
        } catch (LinkageError e) {
            Throwable cause = e.getCause() == null ? e : e.getCause();
            return Optional.of("native access: " + cause.getMessage());
        }
    }

    /**
     * Why {@code path} cannot be opened for reading and writing, as in {@code "/dev/vfio/12:
     * permission denied (EACCES)"}; empty when its access rights are no obstacle.
     *
     * <p>The file is not opened: opening resets some devices.
     */
    public static Optional<String> unavailable(Path path) {
        try (Arena arena = Arena.ofConfined()) {
            int result = LibC.access(arena.allocateFrom(path.toString()), R_OK_W_OK);
            return result == 0
                    ? Optional.empty()
                    : Optional.of(path + ": " + Errno.describe(-result));
        }
    }

    /**
     * Confines the calling platform thread to one processor (sched_setaffinity(2)).
     *
     * @param cpu the processor's number, from 0
     * @throws LinuxException when there is no such processor or the process may not use it (EINVAL)
     * @throws IllegalArgumentException for a number outside 0 to 1023, or in a virtual thread,
     *     whose carrier would be confined instead
     */
    public static void pin(int cpu) throws LinuxException {
        if (cpu < 0 || cpu >= CPU_SETSIZE) {
            throw new IllegalArgumentException("cpu " + cpu + ": 0 to " + (CPU_SETSIZE - 1));
        }
        if (Thread.currentThread().isVirtual()) {
            throw new IllegalArgumentException("cpu " + cpu + ": a virtual thread has no place");
        }
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment set = arena.allocate(CPU_SETSIZE / 8, 8);
            set.set(ValueLayout.JAVA_BYTE, cpu / 8, (byte) (1 << cpu % 8));
            int result = LibC.schedSetaffinity(0, set);
            if (result < 0) {
                throw new LinuxException("sched_setaffinity", "cpu " + cpu, -result);
            }
        }
    }

    /**
     * Waits for the end of a thread that is about to end; for the calling thread itself not at all.
     * An interrupt does not end the waiting, and is pending afterwards.
     */
    public static void join(Thread thread) {
        boolean interrupted = false;
        while (thread != Thread.currentThread() && thread.isAlive()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
