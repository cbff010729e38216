package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.backend.blk.RamProvider;
import virtio.backend.net.LoopbackProvider;

import java.util.List;

class DeviceCommandsTest {
    private final Console console = new Console();
    private final DeviceCommands commands = new DeviceCommands(null);

    /** Every option that is shown is one that a backend takes. */
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "ram      | 1MiB,readonly,blocksize=4096,queues=2,serial=x",
                "loopback | ,mac=52:54:00:12:34:56,mtu=9000,pairs=2,speed=10000,without=MRG_RXBUF"
            })
    void helpShowsWhatBackendsTake(String name, String spec) throws Exception {
        for (BackendProvider provider : List.of(new RamProvider(), new LoopbackProvider())) {
            if (provider.name().equals(name)) {
                try (Backend backend = provider.open(spec)) {
                    assertTrue(backend.queueCount() > 0);
                }
            }
        }
        commands.export(console.session, "--help");
        assertTrue(console.printed().contains(" " + name + ":"), console::printed);
        for (String option : spec.substring(spec.indexOf(',') + 1).split(",")) {
            String shown = "[," + option.replaceAll("=.*", "=");
            assertTrue(console.printed().contains(shown), shown + " in " + console.printed());
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "mmio:NAME",
                "pci:NAME",
                "vhost-user:PATH[,without=FEATURE]...",
                "vduse:NAME[,keep][,split]"
            })
    void helpShowsWhereABackendCanBeOffered(String form) throws Exception {
        commands.export(console.session, "--help");
        assertTrue(console.printed().contains(form), console::printed);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "mmio:NAME",
                "pci:NAME",
                "mmio:0xADDRESS[,interrupt=/dev/uioN|poll]",
                "pci:0000:00:04.0",
                "vhost-user:PATH[,type=blk|net][,without=FEATURE]...",
                "vhost-vdpa:/dev/vhost-vdpa-N"
            })
    void helpShowsWhereADeviceMayBe(String form) throws Exception {
        commands.attach(console.session, "--help");
        commands.swap(console.session, "--help");
        assertTrue(console.printed().split("\\Q" + form + "\\E", -1).length == 3, console::printed);
    }
}
