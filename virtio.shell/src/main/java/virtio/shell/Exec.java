package virtio.shell;

import org.apache.felix.service.command.CommandProcessor;
import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Converter;
import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.BundleListener;
import org.osgi.framework.FrameworkListener;
import org.osgi.framework.InvalidSyntaxException;
import org.osgi.framework.ServiceListener;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.component.annotations.Reference;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.FileSystemException;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;

/**
 * Runs the commands of the framework property {@code virtio.exec} once the container is up, and
 * ends the process: with 0, or with 1 when a command failed or the container did not come up. With
 * {@code -} the commands are the lines of the input, as they come.
 */
@Component(
        service = {},
        immediate = true)
public final class Exec {
    /** Framework property: how long the container may take to come up. */
    private static final String UP_TIMEOUT = "virtio.exec.timeoutSeconds";

    private static final long UP_TIMEOUT_SECONDS = 30;

    /** Instead of commands: they are the lines of the input. */
    private static final String INPUT = "-";

    private final BundleContext context;
    private final CommandProcessor processor;
    private final Object changed = new Object();
    private boolean stopped;

    /** Does nothing when there is nothing to run. */
    @Activate
    public Exec(BundleContext context, @Reference CommandProcessor processor) {
        this.context = context;
        this.processor = processor;
        String commands = context.getProperty("virtio.exec");
        if (commands != null) new Thread(() -> exec(commands), "virtio-exec").start();
    }

    @Deactivate
    void stop() {
        synchronized (changed) {
            stopped = true;
            changed.notifyAll();
        }
    }

    private boolean isStopped() {
        synchronized (changed) {
            return stopped;
        }
    }

    private void exec(String commands) {
        // Not System.out and the like: Gogo has put streams of its own there, which lead to these.
        var in = new FileInputStream(FileDescriptor.in);
        var out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        var err = new PrintStream(new FileOutputStream(FileDescriptor.err), true);
        int exit = 1;
        try {
            awaitUp();
            try (CommandSession session = processor.createSession(in, out, err)) {
                if (commands.equals(INPUT)) {
                    exit = executeLines(session, in, out, err);
                } else {
                    execute(session, commands, out);
                    exit = 0;
                }
            }
        } catch (Exception e) {
            // A container that is told to stop interrupts its commands, and ends by itself.
            if (!isStopped()) err.println("virtio: " + reason(e));
        }
        out.flush();
        if (!isStopped()) System.exit(exit);
    }

    private static void execute(CommandSession session, CharSequence commands, PrintStream out)
            throws Exception {
        Object result = session.execute(commands);
        if (result != null) out.println(session.format(result, Converter.INSPECT));
    }

    /** Each line by itself, whatever became of those before it; 1 when one of them failed. */
    private int executeLines(
            CommandSession session, InputStream in, PrintStream out, PrintStream err)
            throws IOException {
        int exit = 0;
        var lines = new BufferedReader(new InputStreamReader(in));
        for (String line; !isStopped() && (line = lines.readLine()) != null; ) {
            try {
                execute(session, line, out);
            } catch (Exception e) {
                err.println("virtio: " + reason(e));
                exit = 1;
            }
        }
        return exit;
    }

    private static String reason(Throwable failure) {
        while (failure instanceof InvocationTargetException && failure.getCause() != null) {
            failure = failure.getCause();
        }
        boolean clear = failure.getMessage() != null && !(failure instanceof FileSystemException);
        return clear ? failure.getMessage() : failure.toString();
    }

    private void awaitUp() throws InterruptedException, InvalidSyntaxException {
        BundleListener bundles = _ -> wake();
        FrameworkListener framework = _ -> wake();
        ServiceListener commands = _ -> wake();
        context.addBundleListener(bundles);
        context.addFrameworkListener(framework);
        context.addServiceListener(commands, "(osgi.command.scope=virtio)");
        try {
            String set = context.getProperty(UP_TIMEOUT);
            long seconds = set == null ? UP_TIMEOUT_SECONDS : Long.parseLong(set);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
            synchronized (changed) {
                String missing;
                while (!(missing = missing()).isEmpty()) {
                    long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                    if (stopped || left <= 0) {
                        throw new IllegalStateException(
                                "not up within " + seconds + " s: " + missing);
                    }
                    changed.wait(left);
                }
            }
        } finally {
            context.removeBundleListener(bundles);
            context.removeFrameworkListener(framework);
            context.removeServiceListener(commands);
        }
    }

    private void wake() {
        synchronized (changed) {
            changed.notifyAll();
        }
    }

    /** What is not up yet, or nothing. */
    private String missing() {
        var missing = new StringJoiner(", ");
        if (context.getBundle(0).getState() != Bundle.ACTIVE) missing.add("the framework");
        for (Bundle bundle : context.getBundles()) {
            if (bundle.getState() != Bundle.ACTIVE && !isFragment(bundle)) {
                missing.add(bundle.getSymbolicName());
            }
        }
        for (String folder : context.getProperty("felix.fileinstall.dir").split(",")) {
            File[] jars = new File(folder).listFiles((_, name) -> name.matches("[^.].*\\.jar"));
            for (File jar : jars == null ? new File[0] : jars) {
                if (context.getBundle(jar.toURI().toString()) == null) missing.add(jar.getName());
            }
        }
        try {
            if (context.getServiceReferences((String) null, "(osgi.command.scope=virtio)")
                    == null) {
                missing.add("the virtio commands");
            }
        } catch (InvalidSyntaxException e) {
            throw new AssertionError(e);
        }
        return missing.toString();
    }

    private static boolean isFragment(Bundle bundle) {
        return bundle.getHeaders("").get("Fragment-Host") != null;
    }
}
