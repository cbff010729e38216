package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.ops4j.pax.exam.Configuration;
import org.ops4j.pax.exam.Option;
import org.ops4j.pax.exam.spi.reactors.ExamReactorStrategy;
import org.ops4j.pax.exam.spi.reactors.PerClass;
import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;

import virtio.exam.PaxExamExtension;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import javax.inject.Inject;

/** The distribution's bundles resolve and start together. */
@ExtendWith(PaxExamExtension.class)
@ExamReactorStrategy(PerClass.class)
public class DistributionIT {
    @Inject private BundleContext context;

    @Configuration
    public Option[] config() {
        return new Option[] {Containers.distribution()};
    }

    @Test
    void everyVirtioBundleIsActive() {
        Map<String, Integer> states = new TreeMap<>();
        for (Bundle bundle : context.getBundles()) {
            String name = bundle.getSymbolicName();
            if (name.startsWith("virtio.")) states.put(name, bundle.getState());
        }
        Map<String, Integer> expected = new TreeMap<>();
        for (String name :
                List.of(
                        "virtio.api",
                        "virtio.linux",
                        "virtio.ring",
                        "virtio.transport.mmio",
                        "virtio.transport.pci",
                        "virtio.transport.vduse",
                        "virtio.transport.vhostuser",
                        "virtio.backend.blk",
                        "virtio.backend.net",
                        "virtio.device.blk",
                        "virtio.device.net",
                        "virtio.shell",
                        "virtio.tck",
                        "virtio.exam")) {
            expected.put(name, Bundle.ACTIVE);
        }
        assertEquals(expected, states);
    }
}
