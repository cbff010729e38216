package virtio.bench;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The machine that a benchmark runs on, by {@code /proc}. */
final class Machine {
    private Machine() {}

    /** Processors that this process may use. */
    static List<Integer> processors() throws IOException {
        List<Integer> processors = new ArrayList<>();
        for (String range : field("/proc/self/status", "Cpus_allowed_list").split(",")) {
            String[] ends = range.split("-");
            int last = Integer.parseInt(ends[ends.length - 1]);
            for (int number = Integer.parseInt(ends[0]); number <= last; number++) {
                processors.add(number);
            }
        }
        return processors;
    }

    /** Processor, kernel, and the load before the benchmark. */
    static String describe() throws IOException {
        return "%s, %d processors, Linux %s, load %s"
                .formatted(
                        field("/proc/cpuinfo", "model name"),
                        processors().size(),
                        System.getProperty("os.version"),
                        Files.readString(Path.of("/proc/loadavg")).split(" ")[0]);
    }

    static long residentBytes(long pid) throws IOException {
        return Long.parseLong(field("/proc/" + pid + "/status", "VmRSS").replace(" kB", "")) << 10;
    }

    /** Nanoseconds that a thread was ready to run and had no processor; the name is Linux's. */
    static long waitedNanos(long pid, String thread) throws IOException {
        Path tasks = Path.of("/proc/" + pid + "/task");
        try (DirectoryStream<Path> all = Files.newDirectoryStream(tasks)) {
            for (Path task : all) {
                if (Files.readString(task.resolve("comm")).strip().equals(thread)) {
                    return Long.parseLong(
                            Files.readString(task.resolve("schedstat")).strip().split(" ")[1]);
                }
            }
        }
        throw new IOException("no thread %s in %s".formatted(thread, tasks));
    }

    private static String field(String file, String name) throws IOException {
        for (String line : Files.readAllLines(Path.of(file))) {
            String[] field = line.split(":", 2);
            if (field[0].strip().equals(name)) {
                return field[1].strip();
            }
        }
        return "?";
    }
}
