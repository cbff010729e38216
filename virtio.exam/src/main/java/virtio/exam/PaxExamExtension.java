package virtio.exam;

import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.InvocationInterceptor;
import org.junit.jupiter.api.extension.ReflectiveInvocationContext;
import org.junit.jupiter.api.extension.TestInstancePostProcessor;
import org.osgi.framework.FrameworkUtil;

import java.lang.reflect.Method;

/**
 * Runs each test method of a Jupiter class inside the OSGi framework that Pax Exam starts for the
 * class. Lifecycle methods run inside as well, {@code @BeforeAll} and {@code @AfterAll} once per
 * test method. The class and its {@code @Configuration} method are public; fields annotated with
 * {@code javax.inject.Inject} receive services.
 */
public final class PaxExamExtension
        implements BeforeAllCallback,
                AfterAllCallback,
                InvocationInterceptor,
                TestInstancePostProcessor {

    private static final ExtensionContext.Namespace NAMESPACE =
            ExtensionContext.Namespace.create(PaxExamExtension.class);

    /** For Jupiter. */
    public PaxExamExtension() {}

    private static boolean inContainer() {
        return FrameworkUtil.getBundle(PaxExamExtension.class) != null;
    }

    @Override
    public void beforeAll(ExtensionContext context) throws Exception {
        if (!inContainer()) {
            context.getStore(NAMESPACE)
                    .put("session", ExamSession.open(context.getRequiredTestClass()));
        }
    }

    @Override
    public void afterAll(ExtensionContext context) {
        if (!inContainer()) {
            ExamSession session = context.getStore(NAMESPACE).remove("session", ExamSession.class);
            if (session != null) session.close();
        }
    }

    @Override
    public void postProcessTestInstance(Object instance, ExtensionContext context) {
        if (inContainer()) ContainerSide.inject(instance);
    }

    @Override
    public void interceptBeforeAllMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        onlyInContainer(invocation);
    }

    @Override
    public void interceptAfterAllMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        onlyInContainer(invocation);
    }

    @Override
    public void interceptBeforeEachMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        onlyInContainer(invocation);
    }

    @Override
    public void interceptAfterEachMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        onlyInContainer(invocation);
    }

    @Override
    public void interceptTestMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        test(invocation, context);
    }

    @Override
    public void interceptTestTemplateMethod(
            Invocation<Void> invocation,
            ReflectiveInvocationContext<Method> method,
            ExtensionContext context)
            throws Throwable {
        test(invocation, context);
    }

    private static void onlyInContainer(Invocation<Void> invocation) throws Throwable {
        if (inContainer()) invocation.proceed();
        else invocation.skip();
    }

    private static void test(Invocation<Void> invocation, ExtensionContext context)
            throws Throwable {
        onlyInContainer(invocation);
        if (!inContainer()) {
            context.getStore(NAMESPACE)
                    .get("session", ExamSession.class)
                    .invoke(context.getUniqueId());
        }
    }
}
