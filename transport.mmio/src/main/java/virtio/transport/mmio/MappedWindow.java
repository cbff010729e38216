package virtio.transport.mmio;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.linux.Errno;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.Linux;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;
import virtio.linux.Memory;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.file.Path;
import java.util.concurrent.locks.LockSupport;

/**
 * A window of the machine, mapped from {@code /dev/mem}: the named registers' page and no other.
 *
 * <p>Its interrupts come through a UIO device that is bound to it, or it has none, and a thread
 * looks at InterruptStatus every so often.
 */
final class MappedWindow implements RegisterWindow {
    private static final Logger LOG = System.getLogger(MappedWindow.class.getPackageName());
    private static final VarHandle INT = ValueLayout.JAVA_INT.varHandle();
    private static final VarHandle SHORT = ValueLayout.JAVA_SHORT.varHandle();
    private static final VarHandle BYTE = ValueLayout.JAVA_BYTE.varHandle();

    /** How long a device may take to reset itself when it is let go. */
    private static final long RESET_MILLIS = 10_000;

    /**
     * Between two looks at InterruptStatus: few at first, as an access may cost microseconds, and
     * ever more while nothing comes.
     */
    private static final long POLL_MIN_NANOS = 20_000;

    private static final long POLL_MAX_NANOS = 1_000_000;

    private final String name;
    private final FileDescriptor file;
    private final Mapping page;
    private final MemorySegment registers;
    private final FileDescriptor uio;
    private final Runnable onClose;

    /** What a UIO device gives for interrupts, and takes to let more come: 32 bits each. */
    private final MemorySegment count = Arena.ofAuto().allocate(ValueLayout.JAVA_INT);

    private final MemorySegment unmask = Arena.ofAuto().allocateFrom(ValueLayout.JAVA_INT, 1);
    private volatile VirtioException gone;
    private volatile EventLoop.Watch watch;

    // Guarded by this.
    private RegionMemory memory;
    private EventLoop interrupts;
    private Thread poller;

    private MappedWindow(
            String name,
            FileDescriptor file,
            Mapping page,
            MemorySegment registers,
            FileDescriptor uio,
            Runnable onClose) {
        this.name = name;
        this.file = file;
        this.page = page;
        this.registers = registers;
        this.uio = uio;
        this.onClose = onClose;
    }

    /**
     * Maps the window, for this process alone among those that use it in this way.
     *
     * @param memory {@code /dev/mem}
     * @param address of the first register, a multiple of 4
     * @param uio the UIO device that has the window's interrupt, or null to poll
     * @param onClose run once when it is let go
     */
    static MappedWindow open(
            String name, Path memory, long address, long sizeBytes, Path uio, Runnable onClose)
            throws VirtioException {
        FileDescriptor file = null;
        FileDescriptor line = null;
        Mapping page = null;
        try {
            // Uncached, as registers are to be.
            file = FileDescriptor.open(memory, FileDescriptor.O_RDWR | FileDescriptor.O_SYNC);
            file.lock(address, sizeBytes);
            long first = address & -(long) Memory.PAGE_BYTES;
            long end = address + sizeBytes + Memory.PAGE_BYTES - 1 & -(long) Memory.PAGE_BYTES;
            page = Mapping.map(file, first, end - first, true);
            line = uio == null ? null : FileDescriptor.open(uio, FileDescriptor.O_RDWR);
            MemorySegment registers = page.segment().asSlice(address - first, sizeBytes);
            return new MappedWindow(name, file, page, registers, line, onClose);
        } catch (LinuxException e) {
            if (page != null) {
                page.close();
            }
            if (file != null) {
                file.close();
            }
            throw new VirtioException("mmio:%s: %s".formatted(name, reason(e)), e);
        }
    }

    private static String reason(LinuxException e) {
        if (e.errno() == Errno.EAGAIN) {
            return "driven by another process: detach it there first";
        }
        String why =
                switch (e.call() + " " + e.errno()) {
                    case "open " + Errno.ENOENT, "open " + Errno.ENXIO ->
                            "there is no such device here";
                    case "open " + Errno.EACCES, "open " + Errno.EPERM ->
                            "only root may: run as root, with CAP_SYS_RAWIO";
                    case "mmap " + Errno.EPERM, "mmap " + Errno.EACCES ->
                            "a kernel driver has claimed it, or it is ordinary memory: name the"
                                    + " window's own address, or unbind the driver";
                    default -> null;
                };
        return why == null ? e.getMessage() : e.getMessage() + ": " + why;
    }

    /**
     * Takes the window for a driver, whose handler runs from now on.
     *
     * @param visible what the device sees of the driver's memory, held until the device is reset
     */
    synchronized void attach(Driver taker, RegionMemory visible) throws VirtioException {
        visible.hold();
        memory = visible;
        if (uio == null) {
            poller =
                    Thread.ofPlatform()
                            .daemon()
                            .name("virtio-mmio " + name + " poll")
                            .start(() -> poll(taker));
            return;
        }
        try {
            interrupts = EventLoop.start("virtio-mmio " + name + " interrupt");
            watch = interrupts.watch(uio, FileDescriptor.IN, _ -> interrupted(taker));
            uio.write(unmask);
        } catch (LinuxException e) {
            letGo();
            throw new VirtioException("mmio:%s: %s".formatted(name, e.getMessage()), e);
        }
    }

    /**
     * On the thread of the event loop; the kernel has masked the line, which is level-triggered.
     */
    private void interrupted(Driver taker) {
        try {
            uio.read(count);
            taker.interrupt();
            uio.write(unmask);
        } catch (LinuxException e) {
            EventLoop.Watch ending = watch;
            if (ending != null) {
                ending.close();
            }
            if (gone == null) {
                // Bound to something else meanwhile, or unplugged (uio_read: EIO).
                gone = new VirtioException("mmio:%s: %s".formatted(name, e.getMessage()), e);
                taker.gone();
            }
        }
    }

    private void poll(Driver taker) {
        long pause = POLL_MIN_NANOS;
        while (gone == null) {
            if (read(MmioRegisters.INTERRUPT_STATUS) != 0) {
                taker.interrupt();
                pause = POLL_MIN_NANOS;
            } else {
                pause = Math.min(pause + pause / 4, POLL_MAX_NANOS);
            }
            LockSupport.parkNanos(this, pause);
        }
    }

    @Override
    public int read(int offset) {
        try {
            return gone == null ? (int) INT.getVolatile(registers, (long) offset) : -1;
        } catch (IllegalStateException e) {
            return -1; // Unmapped in between.
        }
    }

    @Override
    public void write(int offset, int value) {
        try {
            if (gone == null) {
                // The device sees in memory what was written there before (4.2.3.3).
                VarHandle.fullFence();
                INT.setVolatile(registers, (long) offset, value);
            }
        } catch (IllegalStateException e) {
            // Unmapped in between.
        }
    }

    @Override
    public int configBytes() {
        return (int) registers.byteSize() - MmioRegisters.CONFIG;
    }

    @Override
    public int readConfig(int offset, int width) {
        long at = MmioRegisters.CONFIG + offset;
        try {
            if (gone != null) {
                return -1;
            }
            return switch (width) {
                case 1 -> (byte) BYTE.getVolatile(registers, at) & 0xff;
                case 2 -> (short) SHORT.getVolatile(registers, at) & 0xffff;
                default -> (int) INT.getVolatile(registers, at);
            };
        } catch (IllegalStateException e) {
            return -1;
        }
    }

    @Override
    public void writeConfig(int offset, int width, int value) {
        long at = MmioRegisters.CONFIG + offset;
        try {
            if (gone == null) {
                switch (width) {
                    case 1 -> BYTE.setVolatile(registers, at, (byte) value);
                    case 2 -> SHORT.setVolatile(registers, at, (short) value);
                    default -> INT.setVolatile(registers, at, value);
                }
            }
        } catch (IllegalStateException e) {
            // Unmapped in between.
        }
    }

    @Override
    public VirtioException gone() {
        return gone;
    }

    @Override
    public void detach(Driver leaver) {
        if (Thread.currentThread() == poller) {
            // The poller, in the driver's handler, cannot wait for itself.
            Thread.ofPlatform().daemon().name("virtio-mmio " + name + " detach").start(this::letGo);
        } else {
            letGo();
        }
    }

    /**
     * Resets the device before anything is given back: it would go on to write to physical memory
     * that belongs to others by then. What does not reset keeps its memory for good.
     */
    private void letGo() {
        Thread polling;
        EventLoop waiting;
        synchronized (this) {
            if (!file.isOpen()) {
                return;
            }
            boolean quiet = quiesce();
            if (gone == null) {
                gone = new VirtioException("mmio:%s is closed".formatted(name));
            }
            polling = poller;
            waiting = interrupts;
            poller = null;
            interrupts = null;
            if (quiet && memory != null) {
                memory.release();
            }
            memory = null;
            file.close();
        }
        if (waiting != null) {
            waiting.close();
        }
        if (polling != null) {
            LockSupport.unpark(polling);
            Linux.join(polling);
        }
        if (uio != null) {
            uio.close();
        }
        page.close();
        onClose.run();
    }

    private boolean quiesce() {
        if (memory == null || read(MmioRegisters.STATUS) == 0) {
            return true;
        }
        write(MmioRegisters.STATUS, 0);
        long end = System.nanoTime() + RESET_MILLIS * 1_000_000;
        while (read(MmioRegisters.STATUS) != 0) {
            if (gone != null || System.nanoTime() - end > 0) {
                LOG.log(
                        Level.ERROR,
                        "mmio:{0} is not reset, its status is {1}: its memory stays with it",
                        name,
                        read(MmioRegisters.STATUS));
                return false;
            }
            LockSupport.parkNanos(50_000);
        }
        return true;
    }
}
