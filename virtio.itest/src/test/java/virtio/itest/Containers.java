package virtio.itest;

import static org.ops4j.pax.exam.CoreOptions.bundle;
import static org.ops4j.pax.exam.CoreOptions.composite;
import static org.ops4j.pax.exam.CoreOptions.frameworkProperty;
import static org.ops4j.pax.exam.CoreOptions.systemProperty;

import org.ops4j.pax.exam.Option;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** What a container test starts from. */
public final class Containers {
    /** No terminal to serve; and logging of another version is Pax Exam's own. */
    private static final Pattern NOT_HERE = Pattern.compile("jline|pax-logging");

    private Containers() {}

    /**
     * The distribution's bundles without its terminal, and what runs Jupiter inside. As in the
     * distribution, drivers come through a folder that FileInstall watches: a copy of {@code
     * deploy/}, named by the framework property {@code felix.fileinstall.dir}.
     */
    public static Option distribution() {
        return distribution(_ -> true);
    }

    /** The same, with those of the distribution's jars whose file name is wanted. */
    public static Option distribution(Predicate<String> wanted) {
        Path distro = Path.of(System.getProperty("virtio.distro"));
        return composite(
                systemProperty("pax.exam.invoker").value("jupiter"),
                systemProperty("org.ops4j.pax.logging.DefaultServiceLog.level").value("ERROR"),
                bundles(
                        distro.resolve("bundle"),
                        n -> !NOT_HERE.matcher(n).find() && wanted.test(n)),
                frameworkProperty("felix.fileinstall.dir").value(deploy(distro, wanted).toString()),
                frameworkProperty("felix.fileinstall.noInitialDelay").value("true"),
                frameworkProperty("felix.fileinstall.poll").value("100"),
                bundles(Path.of(System.getProperty("virtio.test.bundles")), _ -> true));
    }

    private static Path deploy(Path distro, Predicate<String> wanted) {
        try (Stream<Path> jars = Files.list(distro.resolve("deploy"))) {
            Path copy = Files.createTempDirectory(Path.of("target"), "deploy-").toAbsolutePath();
            for (Path jar : jars.toList()) {
                String name = jar.getFileName().toString();
                if (wanted.test(name)) Files.copy(jar, copy.resolve(name));
            }
            return copy;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Option bundles(Path folder, Predicate<String> wanted) {
        try (Stream<Path> jars = Files.list(folder)) {
            List<Path> sorted =
                    jars.filter(jar -> wanted.test(jar.getFileName().toString())).sorted().toList();
            return composite(
                    sorted.stream()
                            .map(jar -> bundle(jar.toUri().toString()))
                            .toArray(Option[]::new));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
