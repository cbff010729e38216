package virtio.transport.pci;

import virtio.api.DeviceType;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Configuration space of an emulated function: header, BARs that can be sized, and the capabilities
 * that say where everything is.
 *
 * <pre>
 * 0x40 MSI-X | 0x50 common | 0x60 interrupt status | 0x70 notify | 0x84 access | 0x98 device
 * </pre>
 *
 * <p>Not thread-safe: the function's lock guards it.
 */
final class EmulatedConfig {
    /** The BAR of the virtio structures. */
    static final int BAR = 0;

    /** The BAR of the MSI-X table. */
    static final int MSIX_BAR = 1;

    /** Offset of the common configuration in {@link #BAR}. */
    static final int COMMON = 0x0000;

    /** Offset of the interrupt status in {@link #BAR}. */
    static final int ISR = 0x1000;

    /** Offset of the device configuration in {@link #BAR}. */
    static final int DEVICE = 0x2000;

    /** Offset of the notifications in {@link #BAR}. */
    static final int NOTIFY = 0x4000;

    /** Bytes between two queues' notifications. */
    static final int NOTIFY_MULTIPLIER = 4;

    private static final int MSIX_AT = 0x40;
    private static final int COMMON_AT = 0x50;
    private static final int ISR_AT = 0x60;
    private static final int NOTIFY_AT = 0x70;
    private static final int ACCESS_AT = 0x84;
    private static final int DEVICE_AT = 0x98;

    /** Class 0x01 mass storage, 0x02 network, 0xff anything else; no subclass, no interface. */
    private static final int CLASS_BLOCK = 0x01;

    private static final int CLASS_NETWORK = 0x02;
    private static final int CLASS_OTHER = 0xff;

    private static final int COMMAND_WRITABLE =
            PciRegisters.COMMAND_MEMORY
                    | PciRegisters.COMMAND_BUS_MASTER
                    | PciRegisters.COMMAND_INTX_DISABLE;

    private final ByteBuffer image =
            ByteBuffer.allocate(PciRegisters.CONFIG_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    private final EmulatedFunction function;
    private final MsixTable msix;
    private final long[] barBytes = new long[PciRegisters.BARS];

    EmulatedConfig(
            EmulatedFunction function,
            MsixTable msix,
            int deviceType,
            int configBytes,
            int queueCount) {
        this.function = function;
        this.msix = msix;
        int notifyBytes = Math.max(1, queueCount) * NOTIFY_MULTIPLIER;
        barBytes[BAR] = powerOfTwo(NOTIFY + notifyBytes);
        barBytes[MSIX_BAR] = powerOfTwo(msix.bytes());
        header(deviceType);
        image.put(MSIX_AT, (byte) PciRegisters.CAP_MSIX).put(MSIX_AT + 1, (byte) COMMON_AT);
        image.putInt(MSIX_AT + PciRegisters.MSIX_TABLE, MSIX_BAR);
        image.putInt(MSIX_AT + PciRegisters.MSIX_PENDING, msix.pendingOffset() | MSIX_BAR);
        capability(
                COMMON_AT,
                ISR_AT,
                PciRegisters.CAP_BYTES,
                PciRegisters.TYPE_COMMON,
                COMMON,
                PciRegisters.COMMON_RESET_BYTES);
        capability(ISR_AT, NOTIFY_AT, PciRegisters.CAP_BYTES, PciRegisters.TYPE_ISR, ISR, 1);
        int notifyLength = PciRegisters.NOTIFY_OFF_MULTIPLIER + 4;
        capability(
                NOTIFY_AT, ACCESS_AT, notifyLength, PciRegisters.TYPE_NOTIFY, NOTIFY, notifyBytes);
        image.putInt(NOTIFY_AT + PciRegisters.NOTIFY_OFF_MULTIPLIER, NOTIFY_MULTIPLIER);
        int accessNext = configBytes > 0 ? DEVICE_AT : 0;
        int accessLength = PciRegisters.PCI_CFG_DATA + 4;
        capability(ACCESS_AT, accessNext, accessLength, PciRegisters.TYPE_PCI_CFG, 0, 0);
        if (configBytes > 0) {
            capability(
                    DEVICE_AT,
                    0,
                    PciRegisters.CAP_BYTES,
                    PciRegisters.TYPE_DEVICE,
                    DEVICE,
                    configBytes);
        }
    }

    private static long powerOfTwo(int bytes) {
        return Math.max(4096, Integer.highestOneBit(bytes - 1) * 2L);
    }

    private void header(int deviceType) {
        image.putShort(PciRegisters.VENDOR_ID, (short) PciRegisters.VENDOR);
        int id = PciRegisters.MODERN_FIRST + deviceType;
        image.putShort(PciRegisters.DEVICE_ID, (short) id);
        image.put(PciRegisters.REVISION_ID, (byte) 1);
        int classCode =
                switch (deviceType) {
                    case DeviceType.BLOCK -> CLASS_BLOCK;
                    case DeviceType.NETWORK -> CLASS_NETWORK;
                    default -> CLASS_OTHER;
                };
        image.put(PciRegisters.CLASS_CODE + 2, (byte) classCode);
        image.putShort(PciRegisters.SUBSYSTEM_VENDOR_ID, (short) PciRegisters.VENDOR);
        image.putShort(PciRegisters.SUBSYSTEM_ID, (short) id);
        image.put(PciRegisters.CAPABILITIES, (byte) MSIX_AT);
        image.put(PciRegisters.INTERRUPT_PIN, (byte) 1);
    }

    private void capability(int at, int next, int length, int type, int offset, int bytes) {
        image.put(at, (byte) PciRegisters.CAP_VENDOR).put(at + 1, (byte) next);
        image.put(at + PciRegisters.CAP_LEN, (byte) length);
        image.put(at + PciRegisters.CAP_TYPE, (byte) type);
        image.put(at + PciRegisters.CAP_BAR, (byte) BAR);
        image.putInt(at + PciRegisters.CAP_OFFSET, offset);
        image.putInt(at + PciRegisters.CAP_LENGTH, bytes);
    }

    /** As after a reset of the function. */
    void reset() {
        image.putShort(PciRegisters.COMMAND, (short) 0);
        msix.reset();
    }

    boolean has(int commandBit) {
        return (image.getShort(PciRegisters.COMMAND) & commandBit) != 0;
    }

    long barBytes(int bar) {
        return barBytes[bar];
    }

    int read(int offset, int width) {
        if (offset < 0 || offset + width > image.capacity()) {
            return -1 >>> 32 - 8 * width;
        }
        int data = ACCESS_AT + PciRegisters.PCI_CFG_DATA;
        if (offset >= data && offset < data + 4) {
            image.putInt(data, access(false, 0));
        }
        image.putShort(MSIX_AT + PciRegisters.MSIX_CONTROL, (short) msix.control());
        int status =
                PciRegisters.STATUS_CAPABILITIES
                        | (function.pinAsserted() ? PciRegisters.STATUS_INTERRUPT : 0);
        image.putShort(PciRegisters.STATUS, (short) status);
        int value = 0;
        for (int i = 0; i < width; i++) {
            value |= (image.get(offset + i) & 0xff) << 8 * i;
        }
        return value;
    }

    void write(int offset, int width, int value) {
        if (offset == PciRegisters.COMMAND) {
            image.putShort(offset, (short) (value & COMMAND_WRITABLE));
        } else if (offset == MSIX_AT + PciRegisters.MSIX_CONTROL && width >= 2) {
            msix.control(value);
        } else if (offset >= PciRegisters.BAR_0
                && offset < PciRegisters.BAR_0 + 4 * PciRegisters.BARS
                && width == 4) {
            // The bits below a BAR's size stay 0, by which a driver finds the size.
            long bytes = barBytes[(offset - PciRegisters.BAR_0) / 4];
            image.putInt(offset & ~3, bytes == 0 ? 0 : value & (int) -bytes);
        } else if (offset >= ACCESS_AT + PciRegisters.CAP_BAR
                && offset < ACCESS_AT + PciRegisters.PCI_CFG_DATA + 4) {
            for (int i = 0; i < width; i++) {
                image.put(offset + i, (byte) (value >>> 8 * i));
            }
            if (offset == ACCESS_AT + PciRegisters.PCI_CFG_DATA) {
                access(true, value);
            }
        }
    }

    /** An access to a BAR by the window in configuration space (4.1.4.9). */
    private int access(boolean write, int value) {
        int bar = image.get(ACCESS_AT + PciRegisters.CAP_BAR) & 0xff;
        long offset = Integer.toUnsignedLong(image.getInt(ACCESS_AT + PciRegisters.CAP_OFFSET));
        int width = image.getInt(ACCESS_AT + PciRegisters.CAP_LENGTH);
        boolean possible =
                (width == 1 || width == 2 || width == 4)
                        && bar < PciRegisters.BARS
                        && offset % width == 0
                        && offset + width <= barBytes[bar];
        if (!possible) {
            return -1;
        }
        if (!write) {
            return function.read(bar, offset, width);
        }
        function.write(bar, offset, width, value);
        return 0;
    }
}
