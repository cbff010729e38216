package virtio.ring;

import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.ConfigurationPolicy;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.component.annotations.Reference;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.VirtioException;

/** An attachment that a configuration declares; it lasts as long as that. */
@Component(
        service = {},
        immediate = true,
        configurationPid = "virtio.attach",
        configurationPolicy = ConfigurationPolicy.REQUIRE)
@Designate(ocd = Attachment.Configuration.class, factory = true)
public final class Attachment {
    /** What is attached. */
    @ObjectClassDefinition(name = "Virtio attachment", description = "A device that is driven")
    public @interface Configuration {
        /** Where. */
        @AttributeDefinition(name = "Address", description = "As mmio:emu0")
        String address();

        /** By which name. */
        @AttributeDefinition(
                name = "Name",
                description = "As blk0; empty for the first free one",
                required = false)
        String name() default "";
    }

    private final Bus bus;
    private final AttachedDevice device;

    /** Declares the attachment. */
    @Activate
    public Attachment(@Reference Bus bus, Configuration configuration) throws VirtioException {
        this.bus = bus;
        String name = configuration.name();
        device =
                bus.declareAttachment(
                        configuration.address(), name == null || name.isEmpty() ? null : name);
    }

    /** Takes it back. */
    @Deactivate
    void deactivate() {
        bus.withdraw(device);
    }
}
