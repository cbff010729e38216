package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.CommandSessionListener;
import org.osgi.service.component.annotations.Component;

/** Looks names up in scope virtio first, so that {@code ls} lists devices and not files. */
@Component
public final class Scope implements CommandSessionListener {
    private static final String VARIABLE = "SCOPE";
    private static final String VIRTIO_FIRST = "virtio:*";

    @Override
    public void beforeExecute(CommandSession session, CharSequence command) {
        Object scope = session.get(VARIABLE);
        if (scope == null || !scope.toString().startsWith("virtio:")) {
            session.put(VARIABLE, VIRTIO_FIRST);
        }
    }

    @Override
    public void afterExecute(CommandSession session, CharSequence command, Exception exception) {}

    @Override
    public void afterExecute(CommandSession session, CharSequence command, Object result) {}
}
