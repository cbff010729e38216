package virtio.distro;

import org.osgi.framework.Bundle;
import org.osgi.framework.BundleException;
import org.osgi.framework.Constants;
import org.osgi.framework.launch.Framework;
import org.osgi.framework.launch.FrameworkFactory;
import org.osgi.framework.startlevel.BundleStartLevel;

import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.ServiceLoader;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Starts a Felix container with the bundles of {@code bundle/}: with a terminal, or with {@code -c
 * COMMANDS} to run commands and end. The container keeps its state in a temporary folder of its
 * own, so that any number of them run from one distribution.
 *
 * <p>Not Felix's own launcher, because that copies every jar to a cache before it starts.
 */
final class Launcher {
    private static final long STOP_TIMEOUT_MILLIS = 10_000;

    private Launcher() {}

    public static void main(String[] args) throws Exception {
        Path home = Path.of(System.getProperty("virtio.home"));
        Path work = Files.createTempDirectory("virtio-");
        Map<String, String> config = config(home, work);
        Pattern skip = Pattern.compile("^$");
        if (args.length == 2 && args[0].equals("-c")) {
            config.put("virtio.exec", args[1]);
            skip = Pattern.compile(config.getOrDefault("virtio.exec.skip", "^$"));
        } else if (args.length != 0) {
            System.err.println("virtio: expected nothing or -c COMMANDS");
            System.exit(2);
        } else {
            config.merge(
                    "felix.fileinstall.dir",
                    config.getOrDefault("virtio.devices.dir", ""),
                    (watched, devices) -> watched + "," + devices);
        }

        Framework framework =
                ServiceLoader.load(FrameworkFactory.class)
                        .findFirst()
                        .orElseThrow()
                        .newFramework(config);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(framework, work)));
        // Inherited by every thread of the container: JLine then looks in its own bundle.
        Thread.currentThread().setContextClassLoader(null);
        framework.init();
        List<Bundle> bundles = new ArrayList<>();
        for (Path jar : jars(home.resolve("bundle"))) {
            if (skip.matcher(jar.getFileName().toString()).find()) continue;
            Bundle bundle = framework.getBundleContext().installBundle("reference:" + jar.toUri());
            // The shell starts when the commands are there that people type into it.
            boolean shell = bundle.getSymbolicName().equals("org.apache.felix.gogo.jline");
            bundle.adapt(BundleStartLevel.class).setStartLevel(shell ? 2 : 1);
            bundles.add(bundle);
        }
        for (Bundle bundle : bundles) bundle.start();
        framework.start();
        framework.waitForStop(0);
        System.exit(0);
    }

    private static Map<String, String> config(Path home, Path work) throws IOException {
        var properties = new Properties();
        try (Reader file = Files.newBufferedReader(home.resolve("conf/config.properties"))) {
            properties.load(file);
        }
        Map<String, String> config = new HashMap<>();
        for (String key : properties.stringPropertyNames()) {
            config.put(
                    key,
                    properties
                            .getProperty(key)
                            .replace("${virtio.home}", home.toString())
                            .replace("${virtio.work}", work.toString()));
        }
        config.put(Constants.FRAMEWORK_BEGINNING_STARTLEVEL, "2");
        config.put(Constants.FRAMEWORK_STORAGE, work.resolve("felix").toString());
        return config;
    }

    private static List<Path> jars(Path folder) throws IOException {
        List<Path> jars = new ArrayList<>();
        try (DirectoryStream<Path> found = Files.newDirectoryStream(folder, "*.jar")) {
            found.forEach(jars::add);
        }
        jars.sort(Comparator.naturalOrder());
        return jars;
    }

    private static void stop(Framework framework, Path work) {
        try {
            framework.stop();
            framework.waitForStop(STOP_TIMEOUT_MILLIS);
        } catch (BundleException | InterruptedException e) {
            System.err.println("virtio: stopping: " + e);
        }
        try (Stream<Path> files = Files.walk(work)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) Files.delete(file);
        } catch (IOException | UncheckedIOException e) {
            System.err.println("virtio: " + work + " is left behind: " + e);
        }
    }
}
