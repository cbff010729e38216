package virtio.api.transport;

import org.osgi.annotation.bundle.Attribute;
import org.osgi.annotation.bundle.Capability;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/**
 * Announces a transport as a capability of its bundle, so that a resolver sees it before it starts;
 * put on the {@link TransportProvider}.
 */
@Capability(namespace = VirtioTransport.NAMESPACE)
@Retention(RetentionPolicy.CLASS)
@Target(ElementType.TYPE)
public @interface VirtioTransport {
    /** The capability's namespace and the attribute that carries the name. */
    String NAMESPACE = "virtio.transport";

    /** The transport's name, the part of an address before the first colon. */
    @Attribute(NAMESPACE)
    String value();
}
