package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.ops4j.pax.exam.Configuration;
import org.ops4j.pax.exam.Option;
import org.ops4j.pax.exam.spi.reactors.ExamReactorStrategy;
import org.ops4j.pax.exam.spi.reactors.PerClass;
import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;

import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;
import virtio.exam.PaxExamExtension;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.TimeUnit;

import javax.inject.Inject;

/** The bundles of network cards come and go while frames flow. */
@ExtendWith(PaxExamExtension.class)
@ExamReactorStrategy(PerClass.class)
@Timeout(value = 240, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class NetBundlesIT {
    private static final int BYTES = 200;
    private static final int NUMBER_AT = 14;

    @Inject private BundleContext context;
    @TempDir Path folder;
    private Container container;
    private volatile boolean stopping;
    private volatile Throwable failure;

    /** Frames that came back as they were sent. */
    private volatile int returned;

    @Configuration
    public Option[] config() {
        return new Option[] {Containers.distribution()};
    }

    @BeforeEach
    void setUp() throws Exception {
        container = new Container(context);
        container.startAll();
        container.configureBus(20_000, 2_000);
        container.declareExport("loopback:,mac=52:54:00:00:00:01", "mmio:card");
        container.declareAttachment("mmio:card", "net0");
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        container.clear();
        container.stopAllAndSeeNothingIsLeft();
    }

    @Test
    void theDriversJarIsDroppedInAndTakenOut() throws Exception {
        Path deploy = Path.of(context.getProperty("felix.fileinstall.dir"));
        Path jar = deploy.resolve("device.net.jar");
        Path aside = folder.resolve("device.net.jar");
        container.bundle(Container.NET_DRIVER);
        Files.copy(jar, aside);
        NetDevice last = container.card("net0");
        thereAndBack(last, 1);
        for (int round = 0; round < 3; round++) {
            NetQueue held = last.openQueue(0);
            Files.delete(jar);
            Wait.until("the card to go", () -> container.cardNow("net0") == null);
            Wait.until("the bundle to go", () -> container.find(Container.NET_DRIVER) == null);
            assertNotNull(held.goneReason());
            held.close();
            DeviceSnapshot waiting = container.snapshot("net0");
            assertEquals(State.WAITING, waiting.state());
            assertTrue(waiting.reason().contains("driver"), waiting.reason());
            assertEquals(0, waiting.deviceStatus(), "the device was reset");
            Container.nothingIsHeld();

            // Under a dot name first: a file that is still being written must not be installed.
            Path hidden = Files.copy(aside, deploy.resolve(".device.net.jar"));
            Files.move(hidden, jar, StandardCopyOption.ATOMIC_MOVE);
            NetDevice card = container.card("net0");
            assertNotSame(last, card);
            thereAndBack(card, round);
            last = card;
        }
    }

    @Test
    void theDriverIsReplacedUnderTraffic() throws Exception {
        Thread traffic = traffic(true);
        Bundle driver = container.bundle(Container.NET_DRIVER);
        for (int round = 0; round < 5; round++) {
            awaitMore(500);
            driver.stop();
            assertNull(container.cardNow("net0"));
            driver.update();
            driver.start();
        }
        awaitMore(500);
        end(traffic);
    }

    @Test
    void theTransportIsReplacedUnderTrafficAndNobodyNotices() throws Exception {
        NetDevice card = container.card("net0");
        Thread traffic = traffic(false);
        for (int round = 0; round < 5; round++) {
            awaitMore(500);
            container.bundle(Container.MMIO).update();
            assertSame(card, container.cardNow("net0"), "the service consumers hold");
        }
        awaitMore(500);
        end(traffic);
        // Consumers go on a moment before it is counted.
        Wait.until("5 swaps", () -> container.snapshot("net0").swaps() == 5);
    }

    @Test
    void theBackendsAreReplacedUnderTrafficAndNobodyNotices() throws Exception {
        NetDevice card = container.card("net0");
        Thread traffic = traffic(false);
        for (int round = 0; round < 5; round++) {
            awaitMore(500);
            container.bundle(Container.NET_BACKENDS).update();
            assertSame(card, container.cardNow("net0"), "the service consumers hold");
        }
        awaitMore(500);
        end(traffic);
    }

    @Test
    void theCoreIsReplacedUnderTraffic() throws Exception {
        Thread traffic = traffic(true);
        for (int round = 0; round < 3; round++) {
            awaitMore(500);
            container.bundle(Container.CORE).update();
        }
        awaitMore(500);
        end(traffic);
        assertNotNull(container.snapshot("net0").driver());
    }

    private void thereAndBack(NetDevice card, int number) throws Exception {
        try (NetQueue queue = card.openQueue(0)) {
            exchange(queue, card, number);
            assertEquals(null, failure);
        }
    }

    /** Sends frames and has them back, one after the other, until it is stopped. */
    private Thread traffic(boolean outlivesTheDriver) {
        return Thread.ofPlatform()
                .name("traffic")
                .start(
                        () -> {
                            try {
                                int number = 0;
                                while (!stopping) {
                                    NetDevice card =
                                            outlivesTheDriver
                                                    ? container.cardNow("net0")
                                                    : container.card("net0");
                                    if (card == null) {
                                        Thread.sleep(1);
                                        continue;
                                    }
                                    number = exchange(card, number, outlivesTheDriver);
                                }
                            } catch (Exception | AssertionError e) {
                                failure = e;
                            }
                        });
    }

    private int exchange(NetDevice card, int first, boolean outlivesTheDriver) throws Exception {
        int number = first;
        try (NetQueue queue = card.openQueue(0)) {
            while (!stopping && queue.goneReason() == null) {
                exchange(queue, card, number++);
            }
            assertTrue(stopping || outlivesTheDriver, () -> "gone: " + queue.goneReason());
        } catch (virtio.api.VirtioException | IllegalStateException e) {
            // It went before it was opened, or in the middle.
            assertTrue(outlivesTheDriver, e.toString());
        }
        return number;
    }

    /** One frame, which a swap may drop; whatever comes back is one that was sent. */
    private void exchange(NetQueue queue, NetDevice card, int number) throws Exception {
        byte[] frame = frame(card.macAddress(), number);
        PacketBuffer[] one = new PacketBuffer[1];
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (queue.allocate(one) == 0 && queue.goneReason() == null) {
            assertTrue(System.nanoTime() < end, "a buffer");
            Thread.onSpinWait();
        }
        if (queue.goneReason() != null) {
            return;
        }
        one[0].frame(PacketBuffer.HEADROOM, BYTES);
        MemorySegment.copy(
                MemorySegment.ofArray(frame), 0, one[0].segment(), PacketBuffer.HEADROOM, BYTES);
        while (queue.send(one, 1) == 0 && queue.goneReason() == null) {
            assertTrue(System.nanoTime() < end, "room to send");
            Thread.onSpinWait();
        }
        // A frame that was in flight when the transport changed is dropped.
        while (queue.receive(one, 100) == 1) {
            byte[] bytes = new byte[one[0].frameLength()];
            one[0].copyTo(0, MemorySegment.ofArray(bytes), 0, bytes.length);
            queue.free(one, 1);
            int got = ByteBuffer.wrap(bytes).getInt(NUMBER_AT);
            assertTrue(Arrays.equals(frame(card.macAddress(), got), bytes), "frame " + got);
            assertTrue(got <= number, got + " after " + number);
            returned++;
            if (got == number) {
                return;
            }
        }
    }

    private static byte[] frame(byte[] mac, int number) {
        byte[] bytes = new byte[BYTES];
        new Random(number).nextBytes(bytes);
        ByteBuffer.wrap(bytes).put(mac).put(mac).putShort((short) 0x88B5).putInt(number);
        return bytes;
    }

    private void awaitMore(int frames) throws Exception {
        int enough = returned + frames;
        Wait.until(frames + " frames more", () -> failure != null || returned >= enough);
        assertNull(failure, () -> failure.toString());
    }

    private void end(Thread traffic) throws Exception {
        stopping = true;
        traffic.join(20_000);
        assertTrue(!traffic.isAlive());
        assertNull(failure, () -> failure.toString());
    }
}
