package virtio.ring;

import org.osgi.framework.Bundle;
import org.osgi.framework.ServiceReference;
import org.osgi.framework.Version;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.concurrent.atomic.AtomicLong;

/** Service references without a framework. */
final class FakeReference {
    private static final AtomicLong IDS = new AtomicLong();

    private FakeReference() {}

    static Bundle bundle(String symbolicName) {
        long id = IDS.incrementAndGet();
        return proxy(
                Bundle.class,
                (self, method, arguments) ->
                        switch (method.getName()) {
                            case "getBundleId" -> id;
                            case "getSymbolicName" -> symbolicName;
                            case "getVersion" -> new Version(1, 0, 0);
                            case "hashCode" -> (int) id;
                            case "equals" -> self == arguments[0];
                            case "toString" -> symbolicName;
                            default -> throw new UnsupportedOperationException(method.getName());
                        });
    }

    @SuppressWarnings("unchecked")
    static <T> ServiceReference<T> to(Bundle bundle) {
        long id = IDS.incrementAndGet();
        return proxy(
                ServiceReference.class,
                (self, method, arguments) ->
                        switch (method.getName()) {
                            case "getBundle" -> bundle;
                            // The lower id ranks higher, as in a framework.
                            case "compareTo" ->
                                    arguments[0] == self
                                            ? 0
                                            : Long.compare(arguments[0].hashCode(), id);
                            case "hashCode" -> (int) id;
                            case "equals" -> self == arguments[0];
                            case "toString" -> "reference " + id;
                            default -> throw new UnsupportedOperationException(method.getName());
                        });
    }

    private static <T> T proxy(Class<T> type, InvocationHandler handler) {
        return type.cast(
                Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
    }
}
