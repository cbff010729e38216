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

/** An export that a configuration declares; it lasts as long as that. */
@Component(
        service = {},
        immediate = true,
        configurationPid = "virtio.export",
        configurationPolicy = ConfigurationPolicy.REQUIRE)
@Designate(ocd = ExportDeclaration.Configuration.class, factory = true)
public final class ExportDeclaration {
    /** What is offered where. */
    @ObjectClassDefinition(name = "Virtio export", description = "A backend that is offered")
    public @interface Configuration {
        /** What. */
        @AttributeDefinition(name = "Backend", description = "As ram:64MiB or file:/x.img")
        String backend();

        /** Where. */
        @AttributeDefinition(
                name = "Address",
                description = "As mmio:emu0 or vhost-user:/tmp/x.sock")
        String address();
    }

    private final Bus bus;
    private final DeclaredExport export;

    /** Declares the export. */
    @Activate
    public ExportDeclaration(@Reference Bus bus, Configuration configuration)
            throws VirtioException {
        this.bus = bus;
        export = bus.declareExport(configuration.backend(), configuration.address());
    }

    /** Takes it back. */
    @Deactivate
    void deactivate() {
        bus.withdraw(export);
    }
}
