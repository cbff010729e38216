package virtio.transport.pci;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.api.VirtioException;
import virtio.linux.EventFd;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.IntConsumer;

/**
 * A real function, handed out by VFIO: BARs mapped, or reached by system calls where they cannot
 * be, interrupts by eventfds on a thread of its own.
 */
final class VfioFunction implements PciFunction {
    private static final Logger LOG = System.getLogger(VfioFunction.class.getPackageName());
    private static final VarHandle BYTE = JAVA_BYTE.varHandle();
    private static final VarHandle SHORT = JAVA_SHORT.varHandle();
    private static final VarHandle INT = JAVA_INT.varHandle();

    private final String where;
    private final VfioGroup group;
    private final FileDescriptor device;
    private final Runnable onClose;
    private final Mapping[] mappings = new Mapping[PciRegisters.BARS];
    private final MemorySegment[] bars = new MemorySegment[PciRegisters.BARS];
    private final long[] barBytes = new long[PciRegisters.BARS];
    private final long[] offsets = new long[Vfio.CONFIG_REGION + 1];
    private final List<EventFd> events = new ArrayList<>();
    private final List<EventLoop.Watch> watches = new ArrayList<>();
    private final List<EventFd> alarms = new ArrayList<>();
    private final Arena arena = Arena.ofShared();

    /** For accesses by system call; guarded by itself. */
    private final MemorySegment scratch = arena.allocate(8, 8);

    /** By width, the start of it. */
    private final MemorySegment[] scratches = new MemorySegment[5];

    private EventLoop loop;
    private VfioMemory memory;
    private volatile Driver driver;
    private volatile VirtioException gone;
    private volatile boolean closed;

    private VfioFunction(String where, VfioGroup group, FileDescriptor device, Runnable onClose) {
        this.where = where;
        this.group = group;
        this.device = device;
        this.onClose = onClose;
        for (int width = 1; width <= 4; width *= 2) {
            scratches[width] = scratch.asSlice(0, width);
        }
    }

    /**
     * Takes a function, exclusively, and resets it.
     *
     * @param where whole address, for messages
     * @param onClose run once when it is given back
     */
    static VfioFunction open(String where, PciSlot slot, Runnable onClose) throws VirtioException {
        VfioGroup group = VfioGroup.open(where, slot.group());
        FileDescriptor device;
        try {
            device = group.device(where, slot.function());
        } catch (VirtioException e) {
            group.release();
            throw e;
        }
        VfioFunction function = new VfioFunction(where, group, device, onClose);
        try {
            function.setUp();
            return function;
        } catch (LinuxException | RuntimeException e) {
            function.close();
            throw new VirtioException("%s: %s".formatted(where, e.getMessage()), e);
        }
    }

    private void setUp() throws LinuxException {
        MemorySegment info = arena.allocate(32, 8);
        info.set(JAVA_INT, 0, 16);
        device.ioctl(Vfio.DEVICE_GET_INFO, info);
        if ((info.get(JAVA_INT, 4) & Vfio.DEVICE_CAN_RESET) != 0) {
            device.ioctl(Vfio.DEVICE_RESET, 0);
        }
        for (int region = 0; region <= Vfio.CONFIG_REGION; region++) {
            info.set(JAVA_INT, 0, 32);
            info.set(JAVA_INT, 8, region);
            device.ioctl(Vfio.DEVICE_GET_REGION_INFO, info);
            offsets[region] = info.get(JAVA_LONG, 24);
            if (region < PciRegisters.BARS) {
                barBytes[region] = info.get(JAVA_LONG, 16);
                boolean mappable = (info.get(JAVA_INT, 4) & Vfio.REGION_MMAP) != 0;
                if (barBytes[region] > 0 && mappable) {
                    map(region);
                }
            }
        }
        loop = EventLoop.start("virtio-pci " + where);
        alarm(Vfio.IRQ_REQUEST, "is asked back by the kernel, to be removed or bound elsewhere");
        alarm(Vfio.IRQ_ERROR, "had an error on the bus");
    }

    private void map(int bar) {
        try {
            mappings[bar] = Mapping.map(device, offsets[bar], barBytes[bar], true);
            bars[bar] = mappings[bar].segment();
        } catch (LinuxException e) {
            // In parts only; system calls reach all of it.
            LOG.log(Level.DEBUG, "{0} BAR {1}: {2}", where, bar, e.getMessage());
        }
    }

    private int irqs(int index) throws LinuxException {
        try (Arena own = Arena.ofConfined()) {
            MemorySegment info = own.allocate(16, 4);
            info.set(JAVA_INT, 0, 16);
            info.set(JAVA_INT, 8, index);
            device.ioctl(Vfio.DEVICE_GET_IRQ_INFO, info);
            return info.get(JAVA_INT, 12);
        } catch (LinuxException e) {
            return 0;
        }
    }

    private void alarm(int index, String why) throws LinuxException {
        if (irqs(index) == 0) {
            return;
        }
        EventFd event = EventFd.create();
        alarms.add(event);
        loop.watch(event.file(), FileDescriptor.IN, ready -> lose(event, why));
        trigger(index, List.of(event));
    }

    private void lose(EventFd event, String why) {
        take(event);
        lost(why);
    }

    private void lost(String why) {
        if (gone == null && !closed) {
            gone = new VirtioException(where + " " + why);
            Driver told = driver;
            if (told != null) {
                told.gone();
            }
        }
    }

    private static void take(EventFd event) {
        try {
            event.drain();
        } catch (LinuxException e) {
            // Closed meanwhile.
        }
    }

    /** 0, or how many there could be; an error when there are none at all. */
    private int trigger(int index, List<EventFd> fds) throws LinuxException {
        try (Arena own = Arena.ofConfined()) {
            MemorySegment set = irqSet(own, index, Vfio.TRIGGER_EVENTFD, fds.size());
            for (int i = 0; i < fds.size(); i++) {
                set.set(JAVA_INT, 20 + 4 * i, fds.get(i).file().fd());
            }
            return device.ioctl(Vfio.DEVICE_SET_IRQS, set);
        }
    }

    private static MemorySegment irqSet(Arena arena, int index, int flags, int count) {
        int bytes = 20 + (flags == Vfio.TRIGGER_EVENTFD ? 4 * count : 0);
        MemorySegment set = arena.allocate(bytes, 4);
        set.set(JAVA_INT, 0, bytes);
        set.set(JAVA_INT, 4, flags);
        set.set(JAVA_INT, 8, index);
        set.set(JAVA_INT, 16, count);
        return set;
    }

    /**
     * Who drives it from now on.
     *
     * @param seen what the device reaches, until {@link #detach}
     */
    void attach(Driver taker, VfioMemory seen) {
        seen.hold();
        memory = seen;
        driver = taker;
    }

    VfioGroup group() {
        return group;
    }

    @Override
    public int readConfig(int offset, int width) {
        return readFile(offsets[Vfio.CONFIG_REGION] + offset, width);
    }

    @Override
    public void writeConfig(int offset, int width, int value) {
        writeFile(offsets[Vfio.CONFIG_REGION] + offset, width, value);
    }

    private int readFile(long at, int width) {
        synchronized (scratch) {
            try {
                scratch.set(JAVA_INT, 0, -1);
                device.pread(scratches[width], at);
                return scratch.get(JAVA_INT, 0) & -1 >>> 32 - 8 * width;
            } catch (LinuxException | IllegalStateException e) {
                return -1 >>> 32 - 8 * width;
            }
        }
    }

    private void writeFile(long at, int width, int value) {
        synchronized (scratch) {
            try {
                scratch.set(JAVA_INT, 0, value);
                device.pwrite(scratches[width], at);
            } catch (LinuxException | IllegalStateException e) {
                LOG.log(Level.DEBUG, "{0}: {1}", where, e.getMessage());
            }
        }
    }

    @Override
    public boolean translated() {
        return group.translates();
    }

    @Override
    public long barBytes(int bar) {
        return barBytes[bar];
    }

    @Override
    public int read(int bar, long offset, int width) {
        MemorySegment memory = bars[bar];
        int ones = -1 >>> 32 - 8 * width;
        if (closed || gone != null) {
            return ones;
        }
        if (memory == null) {
            return readFile(offsets[bar] + offset, width);
        }
        try {
            return switch (width) {
                case 1 -> (byte) BYTE.getVolatile(memory, offset) & ones;
                case 2 -> (short) SHORT.getVolatile(memory, offset) & ones;
                default -> (int) INT.getVolatile(memory, offset);
            };
        } catch (InternalError e) {
            lost("does not answer any more: its registers are gone");
        } catch (IllegalStateException e) {
            // Closed meanwhile.
        }
        return ones;
    }

    @Override
    public void write(int bar, long offset, int width, int value) {
        MemorySegment memory = bars[bar];
        if (closed || gone != null) {
            return;
        }
        if (memory == null) {
            writeFile(offsets[bar] + offset, width, value);
            return;
        }
        try {
            // What was written to memory before is to be seen by who is told of it now. The store
            // itself is a plain one: a fault in an ordered 16-bit store would end the process.
            VarHandle.fullFence();
            switch (width) {
                case 1 -> BYTE.set(memory, offset, (byte) value);
                case 2 -> SHORT.set(memory, offset, (short) value);
                default -> INT.set(memory, offset, value);
            }
        } catch (InternalError e) {
            lost("does not answer any more: its registers are gone");
        } catch (IllegalStateException e) {
            // Closed meanwhile.
        }
    }

    @Override
    public int enableMsix(int vectors) throws VirtioException {
        try {
            int wanted = Math.min(vectors, irqs(Vfio.IRQ_MSIX));
            while (wanted > 0) {
                for (int i = events.size(); i < wanted; i++) {
                    int vector = i;
                    watch(event -> deliver(event, vector));
                }
                int could = trigger(Vfio.IRQ_MSIX, events.subList(0, wanted));
                if (could == 0) {
                    return wanted;
                }
                // So many the machine has left.
                wanted = Math.min(could, wanted - 1);
            }
        } catch (LinuxException e) {
            LOG.log(Level.WARNING, "{0} has no MSI-X: {1}", where, e.getMessage());
        }
        endEvents();
        return 0;
    }

    /** An eventfd more, watched. */
    private void watch(Consumer<EventFd> handler) throws LinuxException {
        EventFd event = EventFd.create();
        events.add(event);
        IntConsumer ready = flags -> handler.accept(event);
        watches.add(loop.watch(event.file(), FileDescriptor.IN, ready));
    }

    private void deliver(EventFd event, int vector) {
        take(event);
        Driver told = driver;
        if (told != null) {
            told.interrupt(vector);
        }
    }

    @Override
    public boolean enablePin() throws VirtioException {
        try {
            if (irqs(Vfio.IRQ_PIN) == 0) {
                return false;
            }
            MemorySegment unmask = irqSet(arena, Vfio.IRQ_PIN, Vfio.UNMASK, 1);
            watch(
                    event -> {
                        deliver(event, PIN);
                        // The kernel has masked it, until whoever held it down has let it go.
                        try {
                            device.ioctl(Vfio.DEVICE_SET_IRQS, unmask);
                        } catch (LinuxException | IllegalStateException e) {
                            LOG.log(Level.DEBUG, "{0}: {1}", where, e.getMessage());
                        }
                    });
            trigger(Vfio.IRQ_PIN, events);
            return true;
        } catch (LinuxException e) {
            LOG.log(Level.WARNING, "{0}: {1}", where, e.getMessage());
            endEvents();
            return false;
        }
    }

    @Override
    public void disableInterrupts() {
        for (int index : new int[] {Vfio.IRQ_MSIX, Vfio.IRQ_PIN}) {
            try (Arena own = Arena.ofConfined()) {
                device.ioctl(Vfio.DEVICE_SET_IRQS, irqSet(own, index, Vfio.DISABLE, 0));
            } catch (LinuxException e) {
                // It was not enabled.
            }
        }
        endEvents();
    }

    private void endEvents() {
        watches.forEach(EventLoop.Watch::close);
        watches.clear();
        events.forEach(EventFd::close);
        events.clear();
    }

    @Override
    public VirtioException gone() {
        return gone;
    }

    @Override
    public void detach(Driver leaver) {
        if (leaver == driver) {
            close();
        }
    }

    /** Stops the device's accesses to memory, gives everything back. */
    private void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        driver = null;
        int command = readConfig(PciRegisters.COMMAND, 2);
        writeConfig(PciRegisters.COMMAND, 2, command & ~PciRegisters.COMMAND_BUS_MASTER);
        disableInterrupts();
        if (loop != null) {
            loop.close();
        }
        alarms.forEach(EventFd::close);
        for (Mapping mapping : mappings) {
            if (mapping != null) {
                mapping.close();
            }
        }
        // The kernel resets the function when the last of it is closed.
        device.close();
        if (memory != null) {
            memory.cutOff();
            memory.release();
        }
        group.release();
        synchronized (scratch) {
            arena.close();
        }
        onClose.run();
    }
}
