import com.google.googlejavaformat.java.Main;

import java.io.PrintWriter;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/**
 * Checks or applies the house's format on the Java files below a folder that changed since it last
 * found all of them in order: {@code check|apply ROOT}.
 */
public class Format {
    public static void main(String[] args) throws Exception {
        boolean apply = args[0].equals("apply");
        Path root = Path.of(args[1]).toRealPath();
        Path stamp = root.resolve("cnf/target/formatted");
        FileTime begin = FileTime.from(Instant.now());
        List<String> files =
                changed(
                        root,
                        Files.exists(stamp)
                                ? Files.getLastModifiedTime(stamp)
                                : FileTime.fromMillis(0));
        if (!files.isEmpty()) {
            var command = new ArrayList<>(List.of("--aosp"));
            command.addAll(
                    apply ? List.of("--replace") : List.of("--dry-run", "--set-exit-if-changed"));
            command.addAll(files);
            int exit =
                    new Main(
                                    new PrintWriter(System.out, true),
                                    new PrintWriter(System.err, true),
                                    System.in)
                            .format(command.toArray(String[]::new));
            if (exit != 0) {
                System.err.println("the files named above are not formatted: run cnf/format");
                System.exit(exit);
            }
        }
        Files.createDirectories(stamp.getParent());
        Files.write(stamp, new byte[0]);
        Files.setLastModifiedTime(stamp, begin);
    }

    private static List<String> changed(Path root, FileTime since) throws Exception {
        List<String> files = new ArrayList<>();
        Files.walkFileTree(
                root,
                new SimpleFileVisitor<>() {
                    @Override
                    public FileVisitResult preVisitDirectory(Path dir, BasicFileAttributes attrs) {
                        String name = dir.getFileName().toString();
                        return name.equals("target") || name.equals(".git")
                                ? FileVisitResult.SKIP_SUBTREE
                                : FileVisitResult.CONTINUE;
                    }

                    @Override
                    public FileVisitResult visitFile(Path file, BasicFileAttributes attrs) {
                        if (file.toString().endsWith(".java")
                                && attrs.lastModifiedTime().compareTo(since) >= 0) {
                            files.add(file.toString());
                        }
                        return FileVisitResult.CONTINUE;
                    }
                });
        return files;
    }
}
