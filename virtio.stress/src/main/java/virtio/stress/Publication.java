package virtio.stress;

import static org.openjdk.jcstress.annotations.Expect.ACCEPTABLE;
import static org.openjdk.jcstress.annotations.Expect.FORBIDDEN;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Description;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.III_Result;

import virtio.api.backend.Chain;

/** Whoever sees a buffer sees all of it: descriptors, length and data. */
final class Publication {
    private Publication() {}

    @JCStressTest
    @Description("DRV-SPLIT-025, DRV-PACKED-016: data before availability")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "not available yet")
    @Outcome(id = "1, 4, 305419896", expect = ACCEPTABLE, desc = "all of it")
    @Outcome(expect = FORBIDDEN, desc = "available before it was written")
    @State
    public static class OfOneDescriptor extends Ends {
        @Actor
        public void driverSide() {
            addOut();
            driver.kickPrepare();
        }

        @Actor
        public void deviceSide(III_Result r) {
            if (device.next(chain)) {
                r.r1 = 1;
                r.r2 = (int) chain.readableBytes();
                r.r3 = chain.read32(0);
            }
        }
    }

    @JCStressTest
    @Description("DRV-PACKED-011: the first descriptor of a list becomes available last")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "not available yet")
    @Outcome(id = "84, 305419896, 305419896", expect = ACCEPTABLE, desc = "all of it")
    @Outcome(expect = FORBIDDEN, desc = "available before it was written")
    @State
    public static class OfAChain extends Ends {
        @Actor
        public void driverSide() {
            addChain();
            driver.kickPrepare();
        }

        @Actor
        public void deviceSide(III_Result r) {
            if (device.next(chain)) {
                r.r1 = (int) (10 * chain.readableBytes() + chain.writableBytes());
                r.r2 = chain.read32(0);
                r.r3 = chain.read32(4);
            }
        }
    }

    @JCStressTest
    @Description("DEV-SPLIT-013, DEV-SPLIT-014: length and data before use")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "not used yet")
    @Outcome(id = "1, 4, 305419896", expect = ACCEPTABLE, desc = "all of it")
    @Outcome(expect = FORBIDDEN, desc = "used before it was written")
    @State
    public static class OfAUsedBuffer extends Ends {
        public OfAUsedBuffer() {
            handOver(chain);
        }

        @Actor
        public void deviceSide() {
            use(chain);
        }

        @Actor
        public void driverSide(III_Result r) {
            if (get() == 1) {
                r.r1 = 1;
                r.r2 = driver.usedLength();
                r.r3 = received();
            }
        }
    }

    @JCStressTest
    @Description("The same for a burst of two, of which the second may be missing")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "none yet")
    @Outcome(id = "1, 4, 305419896", expect = ACCEPTABLE, desc = "the first")
    @Outcome(id = "2, 8, 305419896", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "used before it was written")
    @State
    public static class OfABurst extends Ends {
        private final long[] tokens = new long[2];
        private final int[] lengths = new int[2];

        public OfABurst() {
            handOver(chain);
            handOver(second);
        }

        @Actor
        public void deviceSide() {
            use(chain);
            use(second);
        }

        @Actor
        public void driverSide(III_Result r) {
            r.r1 = driver.get(tokens, lengths);
            r.r2 = lengths[0] + lengths[1];
            r.r3 = r.r1 == 0 ? 0 : received();
        }
    }

    @JCStressTest
    @Description("The same for two buffers that are made available at once, and taken at once")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "not available yet")
    @Outcome(id = "2, 8, 305419896", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "one alone, or before it was written")
    @State
    public static class OfTwoBuffers extends Ends {
        private final Chain[] chains = {chain, second};

        @Actor
        public void driverSide() {
            addOut();
            addOut();
            driver.kickPrepare();
        }

        @Actor
        public void deviceSide(III_Result r) {
            r.r1 = device.next(chains, 2);
            for (int i = 0; i < r.r1; i++) {
                r.r2 += (int) chains[i].readableBytes();
                r.r3 = chains[i].read32(0);
            }
        }
    }

    @JCStressTest
    @Description("The same for two premapped buffers that are added at once")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "not available yet")
    @Outcome(id = "2, 8, 305419896", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "one alone, or before it was written")
    @State
    public static class OfTwoAtOnce extends Ends {
        private final Chain[] chains = {chain, second};

        @Actor
        public void driverSide() {
            addTwoOut();
            driver.kickPrepare();
        }

        @Actor
        public void deviceSide(III_Result r) {
            r.r1 = device.next(chains, 2);
            for (int i = 0; i < r.r1; i++) {
                r.r2 += (int) chains[i].readableBytes();
                r.r3 = chains[i].read32(0);
            }
        }
    }

    @JCStressTest
    @Description("virtio 5.1.6.3.2: buffers given back at once are seen at once")
    @Outcome(id = "0, 0, 0", expect = ACCEPTABLE, desc = "none yet")
    @Outcome(id = "2, 8, 305419896", expect = ACCEPTABLE, desc = "both")
    @Outcome(expect = FORBIDDEN, desc = "one alone, or before it was written")
    @State
    public static class OfAUsedBurst extends Ends {
        private final Chain[] chains = {chain, second};
        private final long[] written = {4, 4};
        private final long[] tokens = new long[2];
        private final int[] lengths = new int[2];

        public OfAUsedBurst() {
            handOver(chain);
            handOver(second);
        }

        @Actor
        public void deviceSide() {
            write(chain);
            write(second);
            device.complete(chains, written, 2);
        }

        @Actor
        public void driverSide(III_Result r) {
            r.r1 = driver.get(tokens, lengths);
            r.r2 = lengths[0] + lengths[1];
            r.r3 = r.r1 == 0 ? 0 : received();
        }
    }
}
