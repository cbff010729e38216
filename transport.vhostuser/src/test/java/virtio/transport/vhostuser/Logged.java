package virtio.transport.vhostuser;

import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;

/** What this package logs, kept instead of printed. */
final class Logged extends Handler {
    private final Logger logger = Logger.getLogger(Logged.class.getPackageName());
    private final Queue<String> sentences = new ConcurrentLinkedQueue<>();

    Logged() {
        logger.addHandler(this);
        logger.setUseParentHandlers(false);
    }

    /** Waits for a sentence that has {@code part} in it. */
    void await(String part) throws InterruptedException {
        Peers.await(
                "a sentence with '%s' in %s".formatted(part, sentences),
                () -> sentences.stream().anyMatch(sentence -> sentence.contains(part)));
    }

    @Override
    public void publish(LogRecord sentence) {
        sentences.add(new SimpleFormatter().formatMessage(sentence));
    }

    @Override
    public void flush() {}

    @Override
    public void close() {
        logger.removeHandler(this);
        logger.setUseParentHandlers(true);
    }
}
