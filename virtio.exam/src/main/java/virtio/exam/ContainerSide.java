package virtio.exam;

import static org.junit.platform.engine.discovery.DiscoverySelectors.selectUniqueId;

import org.junit.jupiter.engine.JupiterTestEngine;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherConfig;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.ops4j.pax.exam.ProbeInvoker;
import org.ops4j.pax.exam.ProbeInvokerFactory;
import org.ops4j.pax.exam.TestContainerException;
import org.ops4j.pax.exam.util.Injector;
import org.osgi.annotation.bundle.Header;
import org.osgi.framework.BundleActivator;
import org.osgi.framework.BundleContext;
import org.osgi.framework.Constants;
import org.osgi.framework.ServiceReference;
import org.osgi.framework.wiring.BundleWiring;

import java.util.Hashtable;
import java.util.Map;

/** The side inside the framework: the probe invoker "jupiter" for Pax Exam's extender. */
@Header(name = Constants.BUNDLE_ACTIVATOR, value = "${@class}")
public final class ContainerSide implements BundleActivator {
    private static volatile BundleContext context;

    /** For the framework. */
    public ContainerSide() {}

    @Override
    public void start(BundleContext bundleContext) {
        context = bundleContext;
        ProbeInvokerFactory factory = (probe, _) -> new Invoker((BundleContext) probe);
        bundleContext.registerService(
                ProbeInvokerFactory.class, factory, new Hashtable<>(Map.of("driver", "jupiter")));
    }

    @Override
    public void stop(BundleContext bundleContext) {
        context = null;
    }

    /** Public because the forked container calls it by reflection from another bundle. */
    public static final class Invoker implements ProbeInvoker {
        private final BundleContext probe;

        private Invoker(BundleContext probe) {
            this.probe = probe;
        }

        @Override
        public void call(Object... args) {
            run(probe, (String) args[0]);
        }
    }

    static void inject(Object instance) {
        ServiceReference<Injector> reference = context.getServiceReference(Injector.class);
        if (reference == null) return;
        try {
            context.getService(reference).injectFields(instance);
        } finally {
            context.ungetService(reference);
        }
    }

    private static void run(BundleContext probe, String uniqueId) {
        Thread thread = Thread.currentThread();
        ClassLoader saved = thread.getContextClassLoader();
        thread.setContextClassLoader(probe.getBundle().adapt(BundleWiring.class).getClassLoader());
        try {
            // Nothing by ServiceLoader: bundles do not see each other's META-INF/services.
            var config =
                    LauncherConfig.builder()
                            .enableTestEngineAutoRegistration(false)
                            .addTestEngines(new JupiterTestEngine())
                            .enableLauncherSessionListenerAutoRegistration(false)
                            .enableLauncherDiscoveryListenerAutoRegistration(false)
                            .enablePostDiscoveryFilterAutoRegistration(false)
                            .enableTestExecutionListenerAutoRegistration(false)
                            .build();
            var request =
                    LauncherDiscoveryRequestBuilder.request()
                            .selectors(selectUniqueId(uniqueId))
                            .build();
            var outcome = new Outcome();
            LauncherFactory.create(config).execute(request, outcome);
            if (outcome.failure != null) throw ContainerSide.<Error>unchecked(outcome.failure);
            if (outcome.tests == 0) throw new TestContainerException("nothing ran for " + uniqueId);
        } finally {
            thread.setContextClassLoader(saved);
        }
    }

    private static final class Outcome implements TestExecutionListener {
        private int tests;
        private Throwable failure;

        @Override
        public void executionFinished(TestIdentifier id, TestExecutionResult result) {
            if (id.isTest()) tests++;
            result.getThrowable()
                    .ifPresent(
                            thrown -> {
                                if (failure == null) failure = thrown;
                                else failure.addSuppressed(thrown);
                            });
        }

        @Override
        public void executionSkipped(TestIdentifier id, String reason) {
            tests++;
        }
    }

    @SuppressWarnings("unchecked")
    private static <T extends Throwable> T unchecked(Throwable thrown) throws T {
        throw (T) thrown;
    }
}
