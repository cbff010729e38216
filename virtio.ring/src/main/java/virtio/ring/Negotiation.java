package virtio.ring;

import virtio.api.ConfigSpace;
import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.ring.queue.DriverEnd;

/**
 * The steps of virtio 3.1.1 Driver Requirements: Device Initialization up to FEATURES_OK, for all
 * transports and drivers.
 *
 * @param deviceType what the device says it is
 * @param offered what it offers
 * @param wanted what driver and ring want, offered or not
 * @param accepted what was negotiated
 * @param config the configuration space, writable from here on
 */
record Negotiation(
        int deviceType, Features offered, Features wanted, Features accepted, ConfigReader config) {

    /**
     * Resets the device and negotiates.
     *
     * @throws VirtioException when the device cannot be driven; FAILED is set and it is reset
     */
    static Negotiation run(String device, OpenTransport transport, VirtioDriver driver)
            throws VirtioException {
        String subject = device + " (" + transport.address() + ")";
        int deviceType = transport.deviceType();
        ConfigReader config = new ConfigReader(transport, subject);
        transport.reset();
        try {
            transport.addStatus(DeviceStatus.ACKNOWLEDGE);
            transport.addStatus(DeviceStatus.DRIVER);
            Features offered = transport.offered();
            if (!offered.has(Feature.VERSION_1)) {
                throw new VirtioException(
                        subject + ": offers " + offered + " without VERSION_1: a legacy device");
            }
            Features wanted =
                    FeatureRules.ofDeviceType(ask(subject, driver, offered, config))
                            .or(DriverEnd.FEATURES)
                            .with(Feature.VERSION_1, Feature.ACCESS_PLATFORM);
            Features accepted = FeatureRules.satisfied(deviceType, wanted.and(offered));
            transport.accept(accepted);
            transport.addStatus(DeviceStatus.FEATURES_OK);
            int status = transport.status();
            if ((status & DeviceStatus.FEATURES_OK) == 0) {
                throw new VirtioException(
                        "%s: the device refuses the features %s: FEATURES_OK reads back as %s"
                                .formatted(
                                        subject,
                                        names(deviceType, accepted),
                                        DeviceStatus.name(status)));
            }
            config.allowWrites();
            return new Negotiation(deviceType, offered, wanted, accepted, config);
        } catch (VirtioException e) {
            giveUp(transport, e);
            throw e;
        }
    }

    /** Says FAILED and resets; whether the device still listened. */
    static boolean giveUp(OpenTransport transport, VirtioException reason) {
        try {
            transport.addStatus(DeviceStatus.FAILED);
            transport.reset();
            return true;
        } catch (VirtioException e) {
            if (e != reason) {
                reason.addSuppressed(e);
            }
            return false;
        }
    }

    private static Features ask(
            String subject, VirtioDriver driver, Features offered, ConfigSpace config)
            throws VirtioException {
        Features wanted;
        try {
            wanted = driver.wanted(offered, config);
        } catch (RuntimeException | Error e) {
            throw new VirtioException(subject + ": the driver's wanted threw " + e, e);
        }
        if (wanted == null) {
            throw new VirtioException(subject + ": the driver's wanted returned null");
        }
        return wanted;
    }

    private static String names(int deviceType, Features features) {
        StringBuilder names = new StringBuilder();
        features.stream()
                .forEach(
                        bit ->
                                names.append(names.isEmpty() ? "" : ", ")
                                        .append(Feature.name(deviceType, bit)));
        return names.toString();
    }
}
