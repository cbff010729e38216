package virtio.ring;

import virtio.api.ConfigSpace;
import virtio.api.VirtioException;
import virtio.api.transport.Transport;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** The configuration space behind a transport, read between two equal generations. */
final class ConfigReader implements ConfigSpace {
    /** How often a read is tried before the device counts as one that never settles. */
    static final int ATTEMPTS = 100;

    private static final VarHandle SHORT = view(short[].class);
    private static final VarHandle INT = view(int[].class);
    private static final VarHandle LONG = view(long[].class);

    private final Transport transport;
    private final String device;
    private volatile boolean writable;
    private volatile boolean ended;

    /**
     * @param device for error messages
     */
    ConfigReader(Transport transport, String device) {
        this.transport = transport;
        this.device = device;
    }

    /** Writes are allowed from here on: features are negotiated (virtio 3.1.1). */
    void allowWrites() {
        writable = true;
    }

    /** No access is allowed from here on. */
    void end() {
        ended = true;
    }

    @Override
    public int read8(int offset) throws VirtioException {
        return bytes(offset, 1)[0] & 0xFF;
    }

    @Override
    public int read16(int offset) throws VirtioException {
        return (short) SHORT.get(bytes(offset, 2), 0) & 0xFFFF;
    }

    @Override
    public int read32(int offset) throws VirtioException {
        return (int) INT.get(bytes(offset, 4), 0);
    }

    @Override
    public long read64(int offset) throws VirtioException {
        return (long) LONG.get(bytes(offset, 8), 0);
    }

    @Override
    public void read(int offset, byte[] into) throws VirtioException {
        check(offset, into.length);
        int generation = 0;
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            generation = transport.configGeneration();
            transport.readConfig(offset, into);
            if (transport.configGeneration() == generation) {
                return;
            }
        }
        throw new VirtioException(
                ("%s: the configuration changed during each of %d attempts to read %d bytes at"
                                + " offset %d, generation now %d")
                        .formatted(device, ATTEMPTS, into.length, offset, generation));
    }

    @Override
    public void write8(int offset, int value) throws VirtioException {
        write(offset, new byte[] {(byte) value});
    }

    @Override
    public void write16(int offset, int value) throws VirtioException {
        byte[] from = new byte[2];
        SHORT.set(from, 0, (short) value);
        write(offset, from);
    }

    @Override
    public void write32(int offset, int value) throws VirtioException {
        byte[] from = new byte[4];
        INT.set(from, 0, value);
        write(offset, from);
    }

    private byte[] bytes(int offset, int length) throws VirtioException {
        byte[] into = new byte[length];
        read(offset, into);
        return into;
    }

    private void write(int offset, byte[] from) throws VirtioException {
        check(offset, from.length);
        if (!writable) {
            throw new VirtioException(
                    "%s: the configuration is not writable before features are negotiated"
                            .formatted(device));
        }
        transport.writeConfig(offset, from);
    }

    private void check(int offset, int length) throws VirtioException {
        if (ended) {
            throw new VirtioException(
                    "%s: the configuration was asked for after the device was let go"
                            .formatted(device));
        }
        if (offset < 0 || offset > Integer.MAX_VALUE - length) {
            throw new VirtioException(
                    "%s: offset %d with %d bytes is outside any configuration"
                            .formatted(device, offset, length));
        }
    }

    private static VarHandle view(Class<?> array) {
        return MethodHandles.byteArrayViewVarHandle(array, ByteOrder.LITTLE_ENDIAN);
    }
}
