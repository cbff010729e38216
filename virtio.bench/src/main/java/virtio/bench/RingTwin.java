package virtio.bench;

import static java.lang.foreign.ValueLayout.JAVA_BOOLEAN;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import virtio.api.transport.QueueLayout;

import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Rings in C: our own twins, and Linux's; compiled here, called on the thread that asks. */
final class RingTwin {
    private static final long COMPILE_SECONDS = 120;
    private static final Path LINUX_SOURCES = Path.of("/usr/src");
    private static final String RINGTEST = "tools/virtio/ringtest";
    private static final String ARCHIVE = ".tar.xz";

    private static final Linker LINKER = Linker.nativeLinker();

    private final SymbolLookup symbols;

    /** What was compiled, for the life of the process. */
    RingTwin(Path library) {
        symbols = load(library);
    }

    @SuppressWarnings("restricted")
    private static SymbolLookup load(Path library) {
        return SymbolLookup.libraryLookup(library, Arena.global());
    }

    @SuppressWarnings("restricted")
    private MethodHandle function(String name, MemoryLayout result, MemoryLayout... arguments) {
        return LINKER.downcallHandle(
                symbols.findOrThrow(name),
                result == null
                        ? FunctionDescriptor.ofVoid(arguments)
                        : FunctionDescriptor.of(result, arguments));
    }

    /** Compiles our twins into a folder. */
    static Path compileTwin(Path folder) throws Exception {
        Path library = folder.resolve("ring_twin.so");
        compile(List.of("-O3"), library, source(folder, "ring_twin.c"));
        return library;
    }

    /** As {@code gcc (Debian 12.2.0-14) 12.2.0}. */
    static String compiler() throws Exception {
        return Peers.output(COMPILE_SECONDS, List.of("gcc", "--version")).lines().findFirst().get();
    }

    /** Where Linux's ring benchmark is on this machine, unpacked or not; null when it is not. */
    static Path linuxSource() throws IOException {
        if (Files.isDirectory(LINUX_SOURCES)) {
            try (DirectoryStream<Path> trees =
                    Files.newDirectoryStream(LINUX_SOURCES, "linux-source-*")) {
                for (Path tree : trees) {
                    if (tree.toString().endsWith(ARCHIVE)
                            || Files.isDirectory(tree.resolve(RINGTEST))) {
                        return tree;
                    }
                }
            }
        }
        return null;
    }

    /** Compiles Linux's ring into a folder. */
    static Path compileLinux(Path source, Path folder) throws Exception {
        Path ringtest = source.resolve(RINGTEST);
        if (source.toString().endsWith(ARCHIVE)) {
            String name = source.getFileName().toString().replace(ARCHIVE, "");
            String into = folder.toString();
            System.err.println("unpacking the ring benchmark of " + source);
            Peers.output(
                    COMPILE_SECONDS,
                    List.of("tar", "-xJf", source.toString(), "-C", into, name + "/" + RINGTEST));
            ringtest = folder.resolve(name).resolve(RINGTEST);
        }
        Path library = folder.resolve("ring_linux.so");
        compile(
                List.of("-O2", "-flto", "-fvisibility=hidden", "-I" + ringtest),
                library,
                source(folder, "ring_linux.c"),
                ringtest.resolve("virtio_ring_0_9.c"));
        return library;
    }

    private static Path source(Path folder, String name) throws IOException {
        Path source = folder.resolve(name);
        try (InputStream in = RingTwin.class.getResourceAsStream(name)) {
            Files.copy(in, source);
        }
        return source;
    }

    private static void compile(List<String> options, Path library, Path... sources)
            throws Exception {
        List<String> command = new ArrayList<>(List.of("gcc", "-march=native", "-fPIC", "-shared"));
        command.addAll(options);
        command.addAll(List.of("-o", library.toString()));
        for (Path source : sources) {
            command.add(source.toString());
        }
        Peers.output(COMPILE_SECONDS, command);
    }

    /** What a thread does with a number of buffers. */
    @FunctionalInterface
    interface Loop {
        /** Returns when they are done; a negative number when the peer broke a promise. */
        long run(int buffers) throws Throwable;
    }

    /** The address of a new driver's end on a fresh ring. */
    long driver(RingWay way, QueueLayout ring) throws Throwable {
        MethodHandle make =
                function(
                        "twin_driver",
                        JAVA_LONG,
                        JAVA_INT,
                        JAVA_INT,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG);
        return (long)
                make.invokeExact(
                        way.bits(),
                        ring.size(),
                        ring.descriptorArea(),
                        ring.driverArea(),
                        ring.deviceArea());
    }

    /** The address of a new device's end on a fresh ring. */
    long device(RingWay way, QueueLayout ring) throws Throwable {
        MethodHandle make =
                function(
                        "twin_device",
                        JAVA_LONG,
                        JAVA_INT,
                        JAVA_INT,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG);
        return (long)
                make.invokeExact(
                        way.bits(),
                        ring.size(),
                        ring.descriptorArea(),
                        ring.driverArea(),
                        ring.deviceArea(),
                        4096L,
                        1L << 47);
    }

    Loop drive(RingWay way, long driver, int batch, long buffer) {
        MethodHandle drive =
                function(
                        "twin_drive",
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_INT,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG);
        int bits = way.bits();
        return n -> (long) drive.invokeExact(driver, bits, (long) n, (long) batch, buffer);
    }

    Loop serve(RingWay way, long device, int batch) {
        MethodHandle serve =
                function("twin_serve", JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG);
        int bits = way.bits();
        return n -> (long) serve.invokeExact(device, bits, (long) n, (long) batch);
    }

    Loop solo(RingWay way, long driver, long device, int batch, long buffer) {
        MethodHandle solo =
                function(
                        "twin_solo",
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_INT,
                        JAVA_LONG,
                        JAVA_LONG,
                        JAVA_LONG);
        int bits = way.bits();
        return n -> (long) solo.invokeExact(driver, device, bits, (long) n, (long) batch, buffer);
    }

    /** One side, 0 or 1, of passing a number to and fro; {@code line} holds 0 before. */
    Loop ping(MemorySegment line, int side) {
        MethodHandle ping = function("twin_ping", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT);
        long address = line.address();
        return n -> (long) ping.invokeExact(address, (long) n, side);
    }

    /** How often the calling thread was taken off its processor so far. */
    Loop involuntary() {
        MethodHandle count = function("twin_involuntary", JAVA_LONG);
        return n -> (long) count.invokeExact();
    }

    /** Makes Linux's ring; {@code checked} as {@link RingWay#event}. */
    void startLinux(int size, boolean checked) throws Throwable {
        function("linux_start", null, JAVA_INT, JAVA_BOOLEAN).invokeExact(size, checked);
    }

    Loop driveLinux() {
        MethodHandle drive = function("linux_drive", JAVA_LONG, JAVA_LONG);
        return n -> (long) drive.invokeExact((long) n);
    }

    Loop serveLinux() {
        MethodHandle serve = function("linux_serve", JAVA_LONG, JAVA_LONG);
        return n -> (long) serve.invokeExact((long) n);
    }

    Loop soloLinux(int batch) {
        MethodHandle solo = function("linux_solo", JAVA_LONG, JAVA_LONG, JAVA_LONG);
        return n -> (long) solo.invokeExact((long) n, (long) batch);
    }
}
