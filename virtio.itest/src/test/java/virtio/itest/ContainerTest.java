package virtio.itest;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.ops4j.pax.exam.Configuration;
import org.ops4j.pax.exam.Option;
import org.ops4j.pax.exam.spi.reactors.ExamReactorStrategy;
import org.ops4j.pax.exam.spi.reactors.PerClass;
import org.osgi.framework.BundleContext;

import virtio.exam.PaxExamExtension;

import java.nio.file.Path;

import javax.inject.Inject;

/** Each test has the distribution's bundles running, and leaves nothing behind. */
@ExtendWith(PaxExamExtension.class)
@ExamReactorStrategy(PerClass.class)
public abstract class ContainerTest {
    @Inject BundleContext context;
    @TempDir Path folder;
    Container container;

    @Configuration
    public Option[] config() {
        return new Option[] {Containers.distribution()};
    }

    @BeforeEach
    void start() throws Exception {
        container = new Container(context);
        container.startAll();
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        container.clear();
        container.stopAllAndSeeNothingIsLeft();
    }
}
