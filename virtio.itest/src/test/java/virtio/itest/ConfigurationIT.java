package virtio.itest;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.nio.file.Files;
import java.nio.file.Path;

/** Files of configurations take effect by the names that people are told. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class ConfigurationIT extends ContainerTest {
    @Test
    void everyTransportReadsTheFileOfItsName() throws Exception {
        takesEffect("virtio.transport.mmio", "coherentMebibytes", "63", TransportProvider.class);
        takesEffect("virtio.transport.pci", "bounceMebibytes", "15", TransportProvider.class);
        takesEffect("virtio.transport.vhostuser", "memoryBytes", "65536", TransportProvider.class);
        takesEffect("virtio.transport.vhostvdpa", "memoryBytes", "32768", TransportProvider.class);
        takesEffect("virtio.transport.vduse", "stateFolder", "/run/elsewhere", Exporter.class);
    }

    /** A component that has a configuration has its keys as properties of its service. */
    private void takesEffect(String pid, String key, String value, Class<?> service)
            throws Exception {
        String filter = "(&(service.pid=%s)(%s=%s))".formatted(pid, key, value);
        Path file = Path.of(context.getProperty("felix.fileinstall.dir")).resolve(pid + ".cfg");
        Files.writeString(file, key + " = " + value + "\n");
        try {
            Wait.until(
                    file + " to take effect",
                    () -> !context.getServiceReferences(service, filter).isEmpty());
        } finally {
            Files.delete(file);
        }
        Wait.until(
                file + " to be forgotten",
                () -> context.getServiceReferences(service, filter).isEmpty());
    }
}
