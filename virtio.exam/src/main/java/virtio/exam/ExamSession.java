package virtio.exam;

import org.opentest4j.TestAbortedException;
import org.ops4j.pax.exam.ExceptionHelper;
import org.ops4j.pax.exam.TestAddress;
import org.ops4j.pax.exam.TestProbeBuilder;
import org.ops4j.pax.exam.spi.ExamReactor;
import org.ops4j.pax.exam.spi.StagedExamReactor;
import org.ops4j.pax.exam.spi.reactors.ReactorManager;

import java.lang.reflect.Constructor;

/** The side outside the framework: one staged Pax Exam reactor per test class. */
final class ExamSession {
    private final Class<?> testClass;
    private final StagedExamReactor staged;
    private final TestAddress address;

    private ExamSession(Class<?> testClass, StagedExamReactor staged, TestAddress address) {
        this.testClass = testClass;
        this.staged = staged;
        this.address = address;
    }

    static ExamSession open(Class<?> testClass) throws Exception {
        Constructor<?> constructor = testClass.getDeclaredConstructor();
        constructor.setAccessible(true);
        Object instance = constructor.newInstance();
        ReactorManager manager = ReactorManager.getInstance();
        ExamReactor reactor = manager.prepareReactor(testClass, instance);
        TestProbeBuilder probe = manager.createProbeBuilder(instance);
        TestAddress root = probe.addTest(testClass, "jupiter");
        reactor.addProbe(probe);
        StagedExamReactor staged = manager.stageReactor();
        TestAddress target =
                staged.getTargets().stream()
                        .filter(address -> address.root().equals(root))
                        .findFirst()
                        .orElseThrow();
        manager.beforeClass(staged, testClass);
        return new ExamSession(testClass, staged, target);
    }

    void invoke(String uniqueId) throws Throwable {
        try {
            staged.invoke(new Addressed(address, uniqueId));
        } catch (Exception e) {
            Throwable cause = ExceptionHelper.unwind(e);
            // The container has a class of its own by this name, which Jupiter here does not know.
            if (cause.getClass().getName().equals(TestAbortedException.class.getName())) {
                throw new TestAbortedException(cause.getMessage(), cause);
            }
            throw cause;
        }
    }

    void close() {
        ReactorManager.getInstance().afterClass(staged, testClass);
    }

    /** The staged address, carrying one Jupiter unique id as its argument. */
    private record Addressed(TestAddress target, String uniqueId) implements TestAddress {
        @Override
        public String identifier() {
            return target.identifier();
        }

        @Override
        public String caption() {
            return target.caption();
        }

        @Override
        public TestAddress root() {
            return target.root();
        }

        @Override
        public Object[] arguments() {
            return new Object[] {uniqueId};
        }

        // The reactor looks the probe up by address: the argument must not count.
        @Override
        public int hashCode() {
            return target.hashCode();
        }

        @Override
        public boolean equals(Object other) {
            return target.equals(other);
        }
    }
}
