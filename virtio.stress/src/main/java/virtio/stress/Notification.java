package virtio.stress;

import static org.openjdk.jcstress.annotations.Expect.ACCEPTABLE;
import static org.openjdk.jcstress.annotations.Expect.FORBIDDEN;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Description;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;

/**
 * No wake-up is lost: whoever publishes and is not asked to notify has been seen by the other,
 * which goes to sleep only after it has asked and looked again.
 */
final class Notification {
    private Notification() {}

    @JCStressTest
    @Description("DRV-SPLIT-026, DRV-PACKED-017: the driver kicks, or the device has served")
    @Outcome(id = "1, 0", expect = ACCEPTABLE, desc = "kicked")
    @Outcome(id = "0, 1", expect = ACCEPTABLE, desc = "seen")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the buffer waits for ever")
    @State
    public static class OfAvailableBuffers extends Ends {
        @Actor
        public void driverSide(II_Result r) {
            addOut();
            r.r1 = driver.kickPrepare() ? 1 : 0;
        }

        @Actor
        public void deviceSide(II_Result r) {
            device.serve(this);
            r.r2 = served;
        }
    }

    @JCStressTest
    @Description("The same when the device has served before")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "kicked")
    @Outcome(id = "0, 2", expect = ACCEPTABLE, desc = "seen")
    @Outcome(id = "1, 2", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the buffer waits for ever")
    @State
    public static class OfMoreAvailableBuffers extends Ends {
        public OfMoreAvailableBuffers() {
            addOut();
            driver.kickPrepare();
            device.serve(this);
            get();
        }

        @Actor
        public void driverSide(II_Result r) {
            addOut();
            r.r1 = driver.kickPrepare() ? 1 : 0;
        }

        @Actor
        public void deviceSide(II_Result r) {
            device.serve(this);
            r.r2 = served;
        }
    }

    /** A used buffer against a driver that goes to sleep; what it found is its second result. */
    abstract static class Used extends Ends {
        Used() {
            handOver(chain);
        }

        final void useAndNotify(II_Result r) {
            use(chain);
            device.notifyDriver();
            r.r1 = interrupts;
        }
    }

    @JCStressTest
    @Description("The device interrupts, or enableCallback says that there is more")
    @Outcome(id = "1, 0", expect = ACCEPTABLE, desc = "interrupted")
    @Outcome(id = "0, 1", expect = ACCEPTABLE, desc = "seen")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the driver sleeps for ever")
    @State
    public static class OfUsedBuffersByEnable extends Used {
        public OfUsedBuffersByEnable() {
            driver.disableCallback();
            get();
        }

        @Actor
        public void deviceSide(II_Result r) {
            useAndNotify(r);
        }

        @Actor
        public void driverSide(II_Result r) {
            r.r2 = driver.enableCallback() ? 0 : 1;
        }
    }

    @JCStressTest
    @Description("The same for enableCallbackDelayed")
    @Outcome(id = "1, 0", expect = ACCEPTABLE, desc = "interrupted")
    @Outcome(id = "0, 1", expect = ACCEPTABLE, desc = "seen")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the driver sleeps for ever")
    @State
    public static class OfUsedBuffersByDelayedEnable extends Used {
        public OfUsedBuffersByDelayedEnable() {
            driver.disableCallback();
            get();
        }

        @Actor
        public void deviceSide(II_Result r) {
            useAndNotify(r);
        }

        @Actor
        public void driverSide(II_Result r) {
            r.r2 = driver.enableCallbackDelayed() ? 0 : 1;
        }
    }

    @JCStressTest
    @Description("The same for prepare and poll")
    @Outcome(id = "1, 0", expect = ACCEPTABLE, desc = "interrupted")
    @Outcome(id = "0, 1", expect = ACCEPTABLE, desc = "seen")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the driver sleeps for ever")
    @State
    public static class OfUsedBuffersByPoll extends Used {
        public OfUsedBuffersByPoll() {
            driver.disableCallback();
            get();
        }

        @Actor
        public void deviceSide(II_Result r) {
            useAndNotify(r);
        }

        @Actor
        public void driverSide(II_Result r) {
            r.r2 = driver.poll(driver.enableCallbackPrepare()) ? 1 : 0;
        }
    }

    @JCStressTest
    @Description("Callbacks stay enabled: a get that finds nothing is followed by an interrupt")
    @Outcome(id = "1, 0", expect = ACCEPTABLE, desc = "interrupted")
    @Outcome(id = "0, 1", expect = ACCEPTABLE, desc = "got")
    @Outcome(id = "1, 1", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "the driver sleeps for ever")
    @State
    public static class OfUsedBuffersByGet extends Ends {
        public OfUsedBuffersByGet() {
            // The first interrupt is behind it, and the next one not asked for yet.
            handOver(chain);
            handOver(second);
            use(chain);
            device.notifyDriver();
            get();
            interrupts = 0;
        }

        @Actor
        public void deviceSide(II_Result r) {
            use(second);
            device.notifyDriver();
            r.r1 = interrupts;
        }

        @Actor
        public void driverSide(II_Result r) {
            r.r2 = get();
        }
    }
}
