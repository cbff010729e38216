package virtio.shell;

import org.apache.felix.service.command.CommandSession;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.Proxy;

/** A session that keeps what commands print. */
final class Console {
    private final ByteArrayOutputStream printed = new ByteArrayOutputStream();
    private final PrintStream stream = new PrintStream(printed, true);

    final CommandSession session =
            (CommandSession)
                    Proxy.newProxyInstance(
                            Console.class.getClassLoader(),
                            new Class<?>[] {CommandSession.class},
                            (proxy, method, args) ->
                                    switch (method.getName()) {
                                        case "getConsole" -> stream;
                                        default -> throw new AssertionError(method);
                                    });

    String printed() {
        return printed.toString();
    }
}
