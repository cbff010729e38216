package virtio.linux;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;

/** A call in a thread of its own, and knowing when it has got stuck in the kernel. */
final class Call<T> {
    /** futex(2) on x86-64 and aarch64: the JVM's own waiting. */
    private static final String FUTEX = "202|98";

    private final FutureTask<T> task;
    private volatile Path self;

    Call(Callable<T> body) {
        task =
                new FutureTask<>(
                        () -> {
                            self = Path.of("/proc/thread-self").toRealPath();
                            return body.call();
                        });
        Thread.ofPlatform().daemon().start(task);
    }

    /** Returns once the thread sleeps in a system call. */
    Call<T> blocked() throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (System.nanoTime() < end) {
            if (task.isDone()) {
                throw new AssertionError("ended already: " + task.get());
            }
            if (self != null) {
                String call = Files.readString(self.resolve("syscall")).split("\\s")[0];
                if (call.matches("[0-9]+") && !call.matches(FUTEX)) {
                    return this;
                }
            }
            Thread.onSpinWait();
        }
        throw new AssertionError("in no system call after 10 s");
    }

    boolean isDone() {
        return task.isDone();
    }

    /** What the call returns or throws. */
    T get() throws Exception {
        try {
            return task.get(10, TimeUnit.SECONDS);
        } catch (ExecutionException e) {
            throw e.getCause() instanceof Exception cause ? cause : e;
        }
    }
}
