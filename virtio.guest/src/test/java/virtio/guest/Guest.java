package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.jar.Attributes;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import java.util.jar.Manifest;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.GZIPInputStream;

/**
 * A machine that QEMU emulates, with the distribution in {@code /opt/virtio} and a job to do.
 *
 * <p>A suite boots one guest for many checks, as to start a machine and a JVM in it takes half a
 * minute, and its tests look at what came out:
 *
 * <pre>{@code
 * class PciIT {
 *     static Guest guest;
 *
 *     @BeforeAll
 *     static void boot() throws Exception {
 *         guest = Guest.q35("pci")
 *                 .kernel("intel_iommu=on")
 *                 .disk("d0", image)                                   // -drive if=none,id=d0,…
 *                 .qemu("-device", "virtio-blk-pci,drive=d0,id=blk")
 *                 .job("""
 *                         modprobe vfio-pci
 *                         check bind rebind pci 0000:00:01.0 vfio-pci
 *                         check read container "attach pci:0000:00:01.0; copy blk0 file:/tmp/x"
 *                         """)
 *                 .run();
 *     }
 *
 *     @Test
 *     void reads() {
 *         assertTrue(guest.passed("read").contains(sha256));
 *     }
 * }
 * }</pre>
 *
 * <p>The job is a shell script of busybox; {@code init} beside this class has its functions: {@code
 * check NAME COMMAND…} runs a step, {@code container COMMANDS} a container with shell commands,
 * {@code session NAME} a container that stays and {@code tell NAME COMMANDS} what it is to do,
 * {@code give FILE} hands a file to {@link #file}, {@code hugepages COUNT} reserves memory, {@code
 * rebind BUS DEVICE DRIVER} binds. A step that failed is the test's to judge; the guest itself
 * fails when the job never comes to its end. What the guest says is in {@code
 * target/guests/NAME.log} as well.
 *
 * <p>To act in between, use {@link #boot} instead of {@link #run}: {@link #await} waits for a line
 * of the job, {@link #say} gives it one (its {@code read}; within {@code check} there is no input),
 * {@link #qmp} talks to QEMU's monitor, and {@link #end} waits for the end. Never assert on time.
 *
 * <p>Modules that are there: those that {@code cnf/guest} names. virtio_pci is part of the kernel
 * and takes PCI devices first; virtio_mmio is a module and takes nothing unless it is loaded. The
 * ARM machine has uio_pdrv_genirq alone. Suites are classes named {@code *IT}; two of them run at
 * once. Where {@code cnf/guest} has not prepared the guests, they skip.
 */
final class Guest implements AutoCloseable {
    /** A step of the job, finished. */
    record Step(String name, int exit, String output) {}

    private static final Path FOLDER = Path.of(System.getProperty("virtio.guests"));
    private static final String[] VERSION_2 = {"-global", "virtio-mmio.force-legacy=false"};

    private final String name;
    private final List<String> command = new ArrayList<>();
    private final List<String> lines = new ArrayList<>();
    private final StringBuilder kernel = new StringBuilder();
    private final Image image;
    private int limitSeconds = 600;
    private Path work;
    private Process machine;
    private Thread reader;
    private SocketChannel monitor;
    private final List<String> answers = new ArrayList<>();
    private boolean over;
    private int exit = -1;

    private Guest(String name, Image image) throws IOException {
        this.name = name;
        this.image = image;
        command.addAll(List.of(image.machine("qemu"), "-L", image.tool("qemu_data")));
        command.addAll(List.of("-L", image.tool("seabios"), "-nodefaults", "-no-reboot"));
        command.addAll(List.of("-display", "none", "-serial", "stdio", "-m", "1G"));
        command.addAll(List.of("-accel", "tcg", "-smp", "1"));
    }

    private static Guest pc(String name) throws IOException {
        Guest pc = new Guest(name, new Image(FOLDER, name));
        // Without its frequency some boots hang in calibrating the clock under emulation.
        pc.kernel("console=ttyS0 tsc_early_khz=" + tscKhz());
        return pc.qemu("-cpu", "max", "-device", "isa-debug-exit,iobase=0xf4,iosize=4");
    }

    /** A PC with PCI Express. */
    static Guest q35(String name) throws IOException {
        return pc(name).qemu("-machine", "q35");
    }

    /** A PC with virtio-mmio windows, of version 2, which ACPI describes, and PCI Express. */
    static Guest microvm(String name) throws IOException {
        // SeaBIOS would drive the disks itself before the kernel runs.
        return pc(name).qemu("-machine", "microvm,acpi=on,rtc=on,pcie=on,auto-kernel-cmdline=off")
                .qemu("-bios", "qboot.rom")
                .qemu(VERSION_2);
    }

    /** A 64-bit ARM machine with virtio-mmio windows, of version 2, in its device tree. */
    static Guest virt(String name) throws IOException {
        Guest virt = new Guest(name, Image.arm64(FOLDER, name)).kernel("console=ttyAMA0");
        return virt.qemu("-machine", "virt,gic-version=3", "-cpu", "neoverse-n1").qemu(VERSION_2);
    }

    /** More arguments for the kernel. */
    Guest kernel(String arguments) {
        kernel.append(' ').append(arguments);
        return this;
    }

    /** More arguments for QEMU. */
    Guest qemu(String... arguments) {
        command.addAll(List.of(arguments));
        return this;
    }

    /** A raw image as the drive of that id, written through to the file. */
    Guest disk(String id, Path raw) {
        return qemu("-drive", "if=none,id=%s,format=raw,file=%s".formatted(id, raw));
    }

    /** A file for the guest at an absolute path there. */
    Guest file(String path, Path file) throws IOException {
        image.put(path, Files.readAllBytes(file));
        return this;
    }

    /** The classes beside a program's, for the job's function {@code program}. */
    Guest program(Class<?> program) throws Exception {
        String folder = "/opt/probe/" + program.getPackageName().replace('.', '/') + "/";
        for (Path file : beside(program)) {
            image.put(folder + file.getFileName(), Files.readAllBytes(file));
        }
        return this;
    }

    private static List<Path> beside(Class<?> type) throws Exception {
        Path own = Path.of(type.getResource(type.getSimpleName() + ".class").toURI());
        try (Stream<Path> classes = Files.list(own.getParent())) {
            return classes.toList();
        }
    }

    /**
     * A bundle of the classes beside its activator, which the guest's containers find in {@code
     * deploy/}.
     *
     * @param imports packages, with commas between
     */
    Guest bundle(Class<?> activator, String imports) throws Exception {
        Manifest manifest = new Manifest();
        Attributes headers = manifest.getMainAttributes();
        headers.put(Attributes.Name.MANIFEST_VERSION, "1.0");
        headers.putValue("Bundle-ManifestVersion", "2");
        headers.putValue("Bundle-SymbolicName", activator.getPackageName());
        headers.putValue("Bundle-Activator", activator.getName());
        headers.putValue("Import-Package", imports);
        var jar = new ByteArrayOutputStream();
        try (var out = new JarOutputStream(jar, manifest)) {
            String folder = activator.getPackageName().replace('.', '/') + "/";
            for (Path file : beside(activator)) {
                out.putNextEntry(new JarEntry(folder + file.getFileName()));
                Files.copy(file, out);
            }
        }
        image.put("/opt/virtio/deploy/" + activator.getPackageName() + ".jar", jar.toByteArray());
        return this;
    }

    /** The shell script to run. */
    Guest job(String script) throws IOException {
        image.put("/job", script.getBytes(StandardCharsets.UTF_8));
        return this;
    }

    /** How long it may take, 600 s if not said. */
    Guest limit(int seconds) {
        limitSeconds = seconds;
        return this;
    }

    /** Boots, and waits for the end of the job. */
    Guest run() throws Exception {
        try {
            boot().end();
            return this;
        } finally {
            close();
        }
    }

    /** Boots; to be closed. */
    Guest boot() throws Exception {
        work = Files.createTempDirectory("virtio-guest");
        try {
            Path socket = work.resolve("qmp");
            command.addAll(List.of("-qmp", "unix:%s,server=on,wait=off".formatted(socket)));
            command.addAll(List.of("-kernel", image.machine("kernel")));
            command.addAll(List.of("-initrd", image.write(work).toString()));
            command.addAll(List.of("-append", "quiet panic=-1" + kernel));
            machine = new ProcessBuilder(command).redirectErrorStream(true).start();
            reader = Thread.ofPlatform().daemon().name("guest " + name).start(this::read);
            await("@@ up");
            return this;
        } catch (Exception | AssertionError e) {
            close();
            throw e;
        }
    }

    private static long tscKhz() throws IOException {
        try (Stream<String> cpu = Files.lines(Path.of("/proc/cpuinfo"))) {
            return cpu.filter(line -> line.startsWith("cpu MHz"))
                    .map(line -> (long) (1000 * Double.parseDouble(line.split(":")[1])))
                    .findFirst()
                    .orElse(2_000_000L);
        }
    }

    private void read() {
        try (BufferedReader console = machine.inputReader();
                var log = Files.newBufferedWriter(FOLDER.resolve(name + ".log"))) {
            for (String line = console.readLine(); line != null; line = console.readLine()) {
                line = line.strip();
                log.append(line).append('\n').flush();
                synchronized (lines) {
                    lines.add(line);
                    lines.notifyAll();
                }
            }
        } catch (IOException e) {
            // It was killed.
        }
        synchronized (lines) {
            over = true;
            lines.notifyAll();
        }
    }

    /** Waits for a line that starts so, from the beginning on. */
    String await(String start) throws InterruptedException {
        return await(lines, 0, start, line -> line.startsWith(start));
    }

    /** Waits for such a line of the console or the monitor, from one on. */
    private String await(List<String> said, int from, String name, Predicate<String> wanted)
            throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(limitSeconds);
        synchronized (lines) {
            while (said.stream().skip(from).noneMatch(wanted)) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                assertTrue(!over, () -> "the guest ended without \"" + name + "\": " + tail());
                assertTrue(left > 0, () -> "no \"" + name + "\" in time: " + tail());
                lines.wait(left);
            }
            return said.stream().skip(from).filter(wanted).findFirst().orElseThrow();
        }
    }

    private String tail() {
        synchronized (lines) {
            int from = Math.max(0, lines.size() - 40);
            return String.join("\n", lines.subList(from, lines.size()));
        }
    }

    /** A line for the job to read. */
    void say(String line) throws IOException {
        OutputStream input = machine.getOutputStream();
        input.write((line + "\n").getBytes(StandardCharsets.UTF_8));
        input.flush();
    }

    /**
     * A command to QEMU's monitor, as {@code qmp("device_del", "{\"id\": \"blk\"}")}; the answer,
     * which is no error.
     */
    String qmp(String execute, String arguments) throws Exception {
        if (monitor == null) {
            monitor = SocketChannel.open(StandardProtocolFamily.UNIX);
            monitor.connect(UnixDomainSocketAddress.of(work.resolve("qmp")));
            Thread.ofPlatform().daemon().name("monitor of " + name).start(this::listen);
            qmp("qmp_capabilities", "{}");
        }
        String line = "{\"execute\": \"%s\", \"arguments\": %s}\n".formatted(execute, arguments);
        int before = answers();
        monitor.write(ByteBuffer.wrap(line.getBytes(StandardCharsets.UTF_8)));
        String said =
                await(
                        answers,
                        before,
                        execute,
                        answer ->
                                answer.startsWith("{\"return\"")
                                        || answer.startsWith("{\"error\""));
        assertTrue(said.startsWith("{\"return\""), () -> execute + ": " + said);
        return said;
    }

    /** Asks the guest to let go of a device, and waits until QEMU has taken it out of its slot. */
    void unplug(String device) throws Exception {
        int before = answers();
        qmp("device_del", "{\"id\": \"%s\"}".formatted(device));
        String id = "\"device\": \"%s\"".formatted(device);
        await(
                answers,
                before,
                device + " unplugged",
                answer -> answer.contains("\"DEVICE_DELETED\"") && answer.contains(id));
    }

    private int answers() {
        synchronized (lines) {
            return answers.size();
        }
    }

    private void listen() {
        try {
            var said = new BufferedReader(Channels.newReader(monitor, StandardCharsets.UTF_8));
            for (String line = said.readLine(); line != null; line = said.readLine()) {
                synchronized (lines) {
                    answers.add(line);
                    lines.notifyAll();
                }
            }
        } catch (IOException e) {
            // The machine is off.
        }
    }

    /** Waits until the job and the machine have ended. */
    void end() throws Exception {
        String job = await("@@ job ");
        assertTrue(machine.waitFor(30, TimeUnit.SECONDS), () -> "the machine stays on: " + tail());
        reader.join();
        exit = Integer.parseInt(job.split(" ")[2]);
    }

    /** The job's exit status, once it has ended. */
    int exit() {
        return exit;
    }

    /** A step of the job. */
    Step step(String step) {
        List<String> output = new ArrayList<>();
        boolean inside = false;
        synchronized (lines) {
            for (String line : lines) {
                if (line.startsWith("@@ end " + step + " ")) {
                    int exit = Integer.parseInt(line.split(" ")[3]);
                    return new Step(step, exit, String.join("\n", output));
                }
                if (inside) {
                    output.add(line);
                }
                inside |= line.startsWith("@@ begin " + step + " ");
            }
        }
        throw new AssertionError("no step " + step + " came to its end: " + tail());
    }

    /** The output of a step that must have succeeded. */
    String passed(String name) {
        Step step = step(name);
        assertTrue(step.exit == 0, () -> "%s: %d: %s".formatted(name, step.exit, step.output));
        return step.output;
    }

    /** The output of a step that must have failed by itself, not by a signal. */
    String refused(String name) {
        Step step = step(name);
        assertTrue(
                step.exit > 0 && step.exit < 126,
                () -> "%s: %d: %s".formatted(name, step.exit, step.output));
        return step.output;
    }

    /**
     * What the load of that number in the step counted, {@code "swaps"} or the like; it must have
     * lost nothing.
     */
    int exchanges(String step, int load, String what) {
        String said = step(step).output;
        String end =
                said.lines()
                        .filter(line -> line.contains("none lost"))
                        .skip(load)
                        .findFirst()
                        .orElseThrow(() -> new AssertionError(said));
        Matcher count = Pattern.compile("(\\d+) " + what).matcher(end);
        assertTrue(count.find(), end);
        return Integer.parseInt(count.group(1));
    }

    /** A file that the job gave. */
    byte[] file(String file) throws IOException {
        String text;
        synchronized (lines) {
            text =
                    lines.stream()
                            .dropWhile(line -> !line.equals("@@ file " + file))
                            .skip(1)
                            .takeWhile(line -> !line.equals("@@ eof"))
                            .collect(Collectors.joining());
        }
        byte[] packed = Base64.getDecoder().decode(text);
        try (var unpacked = new GZIPInputStream(new ByteArrayInputStream(packed))) {
            return unpacked.readAllBytes();
        }
    }

    /** Runs one of the host's tools that {@code cnf/guest} knows to its end; what it printed. */
    static String tool(String name, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(Image.prepared(name)));
        command.addAll(List.of(arguments));
        return Image.run(command);
    }

    /** Skips the test with the reason; Maven counts what is skipped, and does not say why. */
    static void assumed(boolean condition, String reason) {
        if (!condition) {
            System.out.println("skipped: " + reason);
        }
        assumeTrue(condition, reason);
    }

    /** Switches the machine off. */
    @Override
    public void close() throws IOException {
        if (monitor != null) {
            monitor.close();
        }
        if (machine != null) {
            machine.destroyForcibly().onExit().join();
        }
        if (work != null) {
            try (Stream<Path> files = Files.walk(work)) {
                for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                    Files.delete(file);
                }
            }
            work = null;
        }
    }
}
