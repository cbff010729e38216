package virtio.bench;

import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.BundleException;
import org.osgi.framework.Constants;
import org.osgi.framework.InvalidSyntaxException;
import org.osgi.framework.ServiceReference;
import org.osgi.framework.launch.Framework;
import org.osgi.framework.launch.FrameworkFactory;

import virtio.api.VirtioBus;
import virtio.api.VirtioDevice;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.net.NetDevice;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import java.util.jar.JarFile;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The distribution's bundles in a container of this process. The contracts come from the class path
 * instead, so that the benchmarks share them with the bundles.
 */
final class Container implements AutoCloseable {
    private static final String API = "virtio.api.jar";
    private static final Pattern NOT_NEEDED =
            Pattern.compile(
                    "virtio\\.(api|shell)|gogo|jline|logging|fileinstall|eventadmin|metatype");
    private static final long SERVICE_TIMEOUT_MILLIS = 10_000;

    private final Path work;
    private final Framework framework;

    Container() throws Exception {
        // What comes and goes all the time is not worth a line.
        Logger.getLogger("").setLevel(Level.WARNING);
        Path home = home();
        work = Files.createTempDirectory("virtio-bench-");
        Map<String, String> config = new HashMap<>();
        config.put(Constants.FRAMEWORK_STORAGE, work.toString());
        try (JarFile api = new JarFile(home.resolve("bundle").resolve(API).toFile())) {
            config.put(
                    Constants.FRAMEWORK_SYSTEMPACKAGES_EXTRA,
                    api.getManifest().getMainAttributes().getValue(Constants.EXPORT_PACKAGE));
        }
        framework =
                ServiceLoader.load(FrameworkFactory.class)
                        .findFirst()
                        .orElseThrow(() -> new IOException("no framework on the class path"))
                        .newFramework(config);
        framework.start();
        List<Bundle> bundles = new ArrayList<>();
        for (String folder : new String[] {"bundle", "deploy"}) {
            try (DirectoryStream<Path> jars =
                    Files.newDirectoryStream(home.resolve(folder), "*.jar")) {
                for (Path jar : jars) {
                    if (!NOT_NEEDED.matcher(jar.getFileName().toString()).find()) {
                        bundles.add(context().installBundle("reference:" + jar.toUri()));
                    }
                }
            }
        }
        for (Bundle bundle : bundles) {
            bundle.start();
        }
    }

    /** The distribution's folder. */
    static Path home() {
        return Path.of(System.getProperty("virtio.home"));
    }

    private BundleContext context() {
        return framework.getBundleContext();
    }

    VirtioBus bus() throws VirtioException, InterruptedException {
        return service(VirtioBus.class, null);
    }

    BlockDevice disk(String name) throws VirtioException, InterruptedException {
        return service(BlockDevice.class, "(" + VirtioDevice.NAME + "=" + name + ")");
    }

    NetDevice card(String name) throws VirtioException, InterruptedException {
        return service(NetDevice.class, "(" + VirtioDevice.NAME + "=" + name + ")");
    }

    private <T> T service(Class<T> type, String filter)
            throws VirtioException, InterruptedException {
        long end = System.nanoTime() + SERVICE_TIMEOUT_MILLIS * 1_000_000;
        while (System.nanoTime() < end) {
            // All, because the framework does not take this class path for the bundles' contracts.
            ServiceReference<?>[] found = find(type, filter);
            if (found != null) {
                return type.cast(context().getService(found[0]));
            }
            Thread.sleep(5);
        }
        throw new VirtioException(
                "no %s %s within %d ms"
                        .formatted(
                                type.getSimpleName(),
                                filter == null ? "service" : filter,
                                SERVICE_TIMEOUT_MILLIS));
    }

    private ServiceReference<?>[] find(Class<?> type, String filter) {
        try {
            return context().getAllServiceReferences(type.getName(), filter);
        } catch (InvalidSyntaxException e) {
            throw new IllegalArgumentException(e);
        }
    }

    @Override
    public void close() throws IOException {
        try {
            framework.stop();
            framework.waitForStop(SERVICE_TIMEOUT_MILLIS);
        } catch (BundleException | InterruptedException e) {
            throw new IOException("the container does not stop: " + e.getMessage(), e);
        }
        try (Stream<Path> files = Files.walk(work)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(file);
            }
        }
    }
}
