package example.shm;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * A process, as both ends write it into the file.
 *
 * <p>A process id is used again some day, so that the time of the start goes with it: in ticks
 * since the machine started, as {@code /proc/PID/stat} has it, which no adjustment of a clock
 * changes. Both ends must see each other there: they live in one PID namespace.
 */
record Owner(long pid, long start) {
    private static final Owner SELF = of(ProcessHandle.current().pid());

    /** Field 22 of proc(5) stat, and field 3; the first behind the name in parentheses is 3. */
    private static final int START_FIELD = 22 - 3;

    /** This process. */
    static Owner self() {
        return SELF;
    }

    /** The process that has this id now; with a start of 0 when there is none, or a dead one. */
    private static Owner of(long pid) {
        try {
            Path stat = Path.of("/proc", Long.toString(pid), "stat");
            // The name may be anything, parentheses and bytes that are no text included.
            String text = new String(Files.readAllBytes(stat), StandardCharsets.ISO_8859_1);
            String[] fields = text.substring(text.lastIndexOf(')') + 2).split(" ");
            boolean dead = fields[0].equals("Z") || fields[0].equals("X");
            return new Owner(pid, dead ? 0 : Long.parseLong(fields[START_FIELD]));
        } catch (IOException | RuntimeException e) {
            return new Owner(pid, 0);
        }
    }

    boolean isAlive() {
        return pid > 0 && start > 0 && (equals(SELF) || equals(of(pid)));
    }

    @Override
    public String toString() {
        return equals(SELF) ? "this process" : "process " + pid;
    }
}
