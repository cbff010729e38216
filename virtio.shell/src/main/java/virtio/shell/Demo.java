package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.BundleException;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.status.SwapResult;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** The story of the platform in half a minute, every step of it checked. */
@Component(
        service = Demo.class,
        property = {"osgi.command.scope=virtio", "osgi.command.function=demo"})
public final class Demo {
    private static final String USAGE = "demo";
    private static final String DRIVER = "virtio.device.blk";
    private static final long IMAGE_BYTES = 64L << 20;
    private static final int ROUND_TRIPS = 10;
    private static final long SERVER_TIMEOUT_SECONDS = 30;

    private final BundleContext context;
    private final VirtioBus bus;
    private final Disks disks;

    /** In this container. */
    @Activate
    public Demo(BundleContext context, @Reference VirtioBus bus, @Reference Disks disks) {
        this.context = context;
        this.bus = bus;
        this.disks = disks;
    }

    @Descriptor("load, hot redeploy and transport swap on a disk, checked")
    public void demo(CommandSession session, String... args) throws Exception {
        Arguments a = Arguments.of(session, USAGE, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        String launcher = context.getProperty("virtio.launcher");
        if (launcher == null) {
            throw new VirtioException(
                    "the second process needs ./virtio: start the demo by ./virtio demo");
        }
        Path directory = Files.createTempDirectory("virtio-demo");
        Path image = directory.resolve("disk.img");
        try (FileChannel file =
                FileChannel.open(image, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
            file.write(java.nio.ByteBuffer.allocate(1), IMAGE_BYTES - 1);
        }
        String backend = "file:" + image + ",serial=demo";
        String near = "mmio:demo";
        String far = "vhost-user:" + directory.resolve("disk.sock");
        Process server = null;
        String name = null;
        try {
            say(out, "a second process serves %s at %s", image.getFileName(), far);
            server = serve(launcher, backend, far);
            say(out, "this one serves the same image at %s, and drives it as a disk", near);
            bus.export(backend, near);
            name = bus.attach(near, null).name();
            tell(out, name, near, far, image);
        } finally {
            String attached = name;
            quietly(() -> bus.detach(attached));
            quietly(() -> bus.unexport(near));
            if (server != null) {
                server.destroy();
                server.waitFor(SERVER_TIMEOUT_SECONDS, TimeUnit.SECONDS);
            }
            for (String file : new String[] {"disk.img", "disk.sock"}) {
                Files.deleteIfExists(directory.resolve(file));
            }
            Files.deleteIfExists(directory);
        }
    }

    private void tell(PrintStream out, String name, String near, String far, Path image)
            throws Exception {
        BlockDevice disk = disks.await(name, 5_000);
        Load load = new Load(disks, disk);
        Thread thread = Thread.ofPlatform().name("virtio-demo-load").start(load);
        try {
            say(out, "%s is under load: random reads and writes, every block checked", name);
            load.awaitMore(20_000);

            long redeployed = redeploy(load);
            say(
                    out,
                    "driver bundle stopped, updated and started under the load: paused for %s",
                    DeviceCommands.millis(redeployed));

            long[] pauses = new long[2 * ROUND_TRIPS];
            for (int i = 0; i < pauses.length; i++) {
                SwapResult swap = bus.swap(name, i % 2 == 0 ? far : near);
                pauses[i] = swap.pauseNanos();
                load.awaitMore(2_000);
            }
            Arrays.sort(pauses);
            say(
                    out,
                    "%d swaps between %s and %s: paused for %s (median), %s (longest)",
                    pauses.length,
                    near,
                    far,
                    DeviceCommands.millis(pauses[pauses.length / 2]),
                    DeviceCommands.millis(pauses[pauses.length - 1]));
        } finally {
            load.stop();
            thread.join();
        }
        load.check();
        say(
                out,
                "%d requests done, none lost; %d were issued again to the new driver",
                load.completed(),
                load.repeated());

        String read = readBack(disks.get(name), load);
        bus.detach(name);
        String stored = HexFormat.of().formatHex(digest(image));
        say(out, "sha256 through the disk  %s", read);
        say(out, "sha256 of the image file %s", stored);
        if (!read.equals(stored)) {
            throw new VirtioException("the checksums differ");
        }
    }

    private long redeploy(Load load) throws Exception {
        for (Bundle bundle : context.getBundles()) {
            if (DRIVER.equals(bundle.getSymbolicName())) {
                load.longestGapNanos();
                bundle.stop(Bundle.STOP_TRANSIENT);
                bundle.update();
                bundle.start(Bundle.START_TRANSIENT);
                load.awaitMore(10_000);
                return load.longestGapNanos();
            }
        }
        throw new BundleException("no bundle " + DRIVER);
    }

    /** Every block compared with what was acknowledged; the checksum of the whole. */
    static String readBack(BlockDevice disk, Load load) throws Exception {
        MessageDigest digest = Copy.sha256();
        int blockBytes = 4096;
        MemorySegment chunk = disk.allocate(256 << 10);
        try {
            disk.flush().get();
            for (long at = 0; at < disk.capacityBytes(); at += chunk.byteSize()) {
                disk.read(at, chunk).get();
                digest.update(chunk.asByteBuffer());
                for (long in = 0; in < chunk.byteSize(); in += blockBytes) {
                    load.verify((int) ((at + in) / blockBytes), chunk.asSlice(in, blockBytes));
                }
            }
        } finally {
            disk.free(chunk);
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    private static byte[] digest(Path file) throws IOException {
        MessageDigest digest = Copy.sha256();
        try (FileChannel channel = FileChannel.open(file)) {
            java.nio.ByteBuffer buffer = java.nio.ByteBuffer.allocate(1 << 20);
            while (channel.read(buffer) >= 0) {
                digest.update(buffer.flip());
                buffer.clear();
            }
        }
        return digest.digest();
    }

    private static Process serve(String launcher, String backend, String address) throws Exception {
        Process server =
                new ProcessBuilder(
                                launcher, "-c", "export %s %s; serve".formatted(backend, address))
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        BufferedReader output = server.inputReader();
        CompletableFuture<Void> serving =
                CompletableFuture.runAsync(
                        () -> {
                            try {
                                String line;
                                while ((line = output.readLine()) != null) {
                                    if (line.startsWith("serving ")) {
                                        return;
                                    }
                                }
                            } catch (IOException e) {
                                throw new java.io.UncheckedIOException(e);
                            }
                            throw new IllegalStateException("the second process ended early");
                        });
        try {
            serving.get(SERVER_TIMEOUT_SECONDS, TimeUnit.SECONDS);
            return server;
        } catch (TimeoutException e) {
            server.destroyForcibly();
            throw new VirtioException(
                    "the second process did not serve within %d s"
                            .formatted(SERVER_TIMEOUT_SECONDS));
        }
    }

    private static void say(PrintStream out, String format, Object... args) {
        out.printf("* " + format + "%n", args);
        out.flush();
    }

    private interface Step {
        void run() throws Exception;
    }

    private static void quietly(Step step) {
        try {
            step.run();
        } catch (Exception e) {
            // Tidying up after something that has its own message already.
        }
    }
}
