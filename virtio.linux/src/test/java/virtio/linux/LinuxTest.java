package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;

@ExtendWith(Leaks.class)
class LinuxTest {
    @Test
    void isAvailableHere() {
        assertEquals(Optional.empty(), Linux.unavailable());
    }

    @Test
    void saysThatNativeAccessIsDenied() throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.add("--illegal-native-access=deny");
        command.add("--class-path");
        command.add(folderOf(Linux.class) + ":" + folderOf(LinuxTest.class));
        command.add(Ask.class.getName());
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), said);
        assertTrue(said.matches("(?s)(native access: Illegal native access.*\\R){2}"), said);
    }

    private static Path folderOf(Class<?> type) throws Exception {
        return Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI());
    }

    /** Asks twice, in a JVM of its own. */
    static final class Ask {
        public static void main(String[] args) {
            System.out.println(Linux.unavailable().orElse("available"));
            System.out.println(Linux.unavailable().orElse("available"));
        }
    }

    @Test
    void saysWhyADeviceIsNot() {
        assertEquals(Optional.empty(), Linux.unavailable(Path.of("/dev/null")));
        assertEquals(
                Optional.of("/dev/absent: no such file or directory (ENOENT)"),
                Linux.unavailable(Path.of("/dev/absent")));
    }

    @Test
    void pinsTheCallingThread() throws Exception {
        String allowed =
                new Call<>(
                                () -> {
                                    int cpu = firstCpu();
                                    Linux.pin(cpu);
                                    return cpu + " " + cpus();
                                })
                        .get();
        String[] both = allowed.split(" ");
        assertEquals(both[0], both[1]);
    }

    private static int firstCpu() throws Exception {
        return Integer.parseInt(cpus().split("[,-]")[0]);
    }

    private static String cpus() throws Exception {
        return Files.readAllLines(Path.of("/proc/thread-self/status")).stream()
                .filter(line -> line.startsWith("Cpus_allowed_list:"))
                .map(line -> line.split(":")[1].strip())
                .findFirst()
                .orElseThrow();
    }

    @Test
    void aProcessorThatIsNotThereIsRefused() {
        LinuxException e = assertThrows(LinuxException.class, () -> Linux.pin(1023));
        assertEquals("sched_setaffinity cpu 1023: invalid argument (EINVAL)", e.getMessage());
        assertThrows(IllegalArgumentException.class, () -> Linux.pin(-1));
        assertThrows(IllegalArgumentException.class, () -> Linux.pin(1024));
    }

    @Test
    void anInterruptIsPendingWhenTheThreadHasEnded() throws Exception {
        CountDownLatch leave = new CountDownLatch(1);
        Thread ending =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        leave.await();
                                    } catch (InterruptedException e) {
                                        throw new AssertionError(e);
                                    }
                                });
        boolean[] seen = new boolean[2];
        Thread waiting =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    Thread.currentThread().interrupt();
                                    Linux.join(ending);
                                    seen[0] = ending.isAlive();
                                    seen[1] = Thread.interrupted();
                                });
        waiting.join(50);
        assertTrue(waiting.isAlive(), "the interrupt ended the waiting");
        leave.countDown();
        waiting.join();
        assertFalse(seen[0]);
        assertTrue(seen[1]);
        Linux.join(Thread.currentThread());
    }

    @Test
    void anUnknownErrorHasANumber() {
        assertTrue(new LinuxException("call", "what", 4095).getMessage().endsWith("4095"));
    }
}
