package example.shm;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** What this process has mapped or open below a folder, as the kernel says. */
final class Mapped {
    private static final long AWAIT_MILLIS = 10_000;

    private Mapped() {}

    /** Threads that end of themselves may be about to. */
    static void awaitNone(Path folder) {
        long end = System.nanoTime() + AWAIT_MILLIS * 1_000_000;
        List<String> left;
        while (!(left = below(folder)).isEmpty()) {
            if (System.nanoTime() - end > 0) {
                throw new AssertionError("mappings or descriptors left: " + left);
            }
            Thread.onSpinWait();
        }
    }

    private static List<String> below(Path folder) {
        try (Stream<Path> open = Files.list(Path.of("/proc/self/fd"))) {
            String maps =
                    new String(
                            Files.readAllBytes(Path.of("/proc/self/maps")),
                            StandardCharsets.ISO_8859_1);
            return Stream.concat(maps.lines(), open.map(Mapped::target))
                    .filter(name -> name.contains(folder.toString()))
                    .toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static String target(Path descriptor) {
        try {
            return Files.readSymbolicLink(descriptor).toString();
        } catch (IOException e) {
            return "";
        }
    }
}
