package virtio.ring;

import virtio.api.VirtioException;

import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * One step after the other on one thread, for all that happens to a device or an export.
 *
 * <p>Others post steps and wait for them, if at all, no longer than they say: a transport or driver
 * that does not return then holds up its own device and nobody else. The thread is a daemon and
 * ends when there is nothing to do. Thread-safe.
 */
final class Lifecycle {
    private static final long IDLE_MILLIS = 500;

    private final ScheduledThreadPoolExecutor executor;
    private final CompletableFuture<Void> ended = new CompletableFuture<>();
    private volatile String name;
    private volatile Thread thread;

    Lifecycle(String name) {
        this.name = name;
        executor =
                new ScheduledThreadPoolExecutor(
                        1,
                        steps -> {
                            Thread made = new Thread(steps, "virtio-" + this.name);
                            made.setDaemon(true);
                            thread = made;
                            return made;
                        }) {
                    @Override
                    protected void terminated() {
                        ended.complete(null);
                    }
                };
        executor.setKeepAliveTime(IDLE_MILLIS, TimeUnit.MILLISECONDS);
        executor.allowCoreThreadTimeOut(true);
        executor.setRemoveOnCancelPolicy(true);
        executor.setExecuteExistingDelayedTasksAfterShutdownPolicy(false);
    }

    /** Changes what the thread is called; from a step only. */
    void rename(String newName) {
        name = newName;
        Thread.currentThread().setName("virtio-" + newName);
    }

    /** Whether the caller is itself a step. */
    boolean isInside() {
        return Thread.currentThread() == thread;
    }

    /** Has the step done soon; nothing once closed. */
    void post(Runnable step) {
        try {
            executor.execute(step);
        } catch (RejectedExecutionException e) {
            // Closed: the last step has been posted, this one has nothing left to act on.
        }
    }

    /** Has the step done later, unless cancelled or closed before; null once closed. */
    Future<?> postLater(Runnable step, long delayMillis) {
        try {
            return executor.schedule(step, delayMillis, TimeUnit.MILLISECONDS);
        } catch (RejectedExecutionException e) {
            return null;
        }
    }

    /**
     * Posts the step, for {@link #await}.
     *
     * @throws VirtioException when closed, or when the caller is itself a step and would wait for
     *     itself
     */
    <T> Future<T> submit(String what, Callable<T> step) throws VirtioException {
        if (isInside()) {
            throw new VirtioException(
                    what
                            + " was asked for by a step of "
                            + name
                            + " that it would have to wait for");
        }
        try {
            return executor.submit(step);
        } catch (RejectedExecutionException e) {
            throw new VirtioException(what + " is not possible: " + name + " is let go", e);
        }
    }

    /**
     * Posts a step after which nothing is in use; once closed, the end of what was posted is it.
     */
    Future<?> submitOrEnd(String what, Callable<?> step) throws VirtioException {
        try {
            return submit(what, step);
        } catch (VirtioException e) {
            if (isInside() || !executor.isShutdown()) {
                throw e;
            }
            return ended;
        }
    }

    /** What the step returned or threw, or an error that names the limit. */
    static <T> T await(String what, Future<T> step, long limitMillis) throws VirtioException {
        try {
            return step.get(Math.max(0, limitMillis), TimeUnit.MILLISECONDS);
        } catch (TimeoutException e) {
            throw new VirtioException(
                    "%s did not end within %d ms".formatted(what, limitMillis), e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new VirtioException(what + " was not waited for: interrupted", e);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof VirtioException reason) {
                throw reason;
            }
            throw new VirtioException(what + " failed: " + e.getCause(), e.getCause());
        }
    }

    /** Takes no more steps; those posted are still done, delayed ones are not. */
    void close() {
        executor.shutdown();
    }

    /** Closes, drops what was posted and interrupts a step that does not end. */
    void closeNow() {
        executor.shutdownNow();
    }

    /** Whether it was closed and its thread has ended, within the limit. */
    boolean awaitEnd(long limitMillis) {
        try {
            return executor.awaitTermination(Math.max(0, limitMillis), TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    @Override
    public String toString() {
        return name;
    }
}
