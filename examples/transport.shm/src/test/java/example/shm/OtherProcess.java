package example.shm;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.transport.Transport;
import virtio.tck.TestDevice;

import java.io.IOException;
import java.nio.file.Path;

/** One end in a process of its own, until it is killed. */
final class OtherProcess implements AutoCloseable {
    private final Process process;

    /** Returns when that end is there. */
    OtherProcess(String end, Path file) throws IOException {
        process =
                new ProcessBuilder(
                                ProcessHandle.current().info().command().orElseThrow(),
                                "-XX:+UseSerialGC",
                                "-cp",
                                System.getProperty("java.class.path"),
                                OtherProcess.class.getName(),
                                end,
                                file.toString())
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        String said = process.inputReader().readLine();
        if (!"ready".equals(said)) {
            process.destroyForcibly();
            throw new AssertionError(end + " is not ready, it said " + said);
        }
    }

    long pid() {
        return process.pid();
    }

    /** Dies without a word. */
    @Override
    public void close() {
        process.destroyForcibly().onExit().join();
    }

    public static void main(String[] arguments) throws Exception {
        ShmProvider both = new ShmProvider(12, 4, 1000);
        if (arguments[0].equals("device")) {
            both.export(arguments[1], new TestDevice(1, 16));
        } else {
            Transport transport = both.open(arguments[1]);
            transport.status(0);
            transport.accept(Features.of(Feature.VERSION_1));
            transport.status(
                    DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK);
        }
        System.out.println("ready");
        System.in.read();
    }
}
