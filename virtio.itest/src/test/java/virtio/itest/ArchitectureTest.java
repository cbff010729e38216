package virtio.itest;

import static com.tngtech.archunit.base.DescribedPredicate.not;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaCodeUnit;
import com.tngtech.archunit.core.domain.JavaPackage;
import com.tngtech.archunit.core.importer.ClassFileImporter;

import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.osgi.annotation.bundle.Export;
import org.osgi.annotation.versioning.Version;

import java.io.IOException;
import java.io.InputStream;
import java.lang.annotation.Annotation;
import java.lang.reflect.Executable;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.jar.Manifest;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The arrows between the bundles run down only, and what is private stays private. */
class ArchitectureTest {
    private static final Path ROOT = Path.of("..").toAbsolutePath().normalize();

    /** About 500. */
    private static final int MAX_LINES = 520;

    private static final String API = "virtio.api..";
    private static final String LINUX = "virtio.linux..";

    /** Each bundle's folder, and which packages of this project it may use beside its own. */
    private static final Map<String, List<String>> MAY_USE =
            new TreeMap<>(
                    Map.ofEntries(
                            Map.entry("virtio.api", List.of()),
                            Map.entry("virtio.linux", List.of()),
                            Map.entry("virtio.tck", List.of(API)),
                            Map.entry("virtio.ring", List.of(API, LINUX)),
                            Map.entry("transport.mmio", List.of(API, LINUX)),
                            Map.entry("transport.pci", List.of(API, LINUX)),
                            Map.entry("transport.vhostuser", List.of(API, LINUX)),
                            Map.entry("transport.vduse", List.of(API, LINUX)),
                            Map.entry("backend.blk", List.of(API)),
                            Map.entry("device.blk", List.of(API)),
                            Map.entry("backend.net", List.of(API, LINUX)),
                            Map.entry("device.net", List.of(API)),
                            Map.entry("virtio.shell", List.of(API))));

    private static final JavaClasses CLASSES =
            new ClassFileImporter()
                    .importPaths(
                            MAY_USE.keySet().stream().map(ArchitectureTest::compiled).toList());

    private static Path compiled(String folder) {
        return ROOT.resolve(folder).resolve("target/classes/virtio");
    }

    private static String packageRoot(String folder) {
        return folder.startsWith("virtio.") ? folder : "virtio." + folder;
    }

    @Test
    void everyBundleHasItsArrows() throws IOException {
        try (Stream<Path> folders = Files.list(ROOT)) {
            Set<String> bundles =
                    folders.filter(folder -> Files.exists(folder.resolve("bnd.bnd")))
                            .map(folder -> folder.getFileName().toString())
                            .collect(Collectors.toCollection(TreeSet::new));
            bundles.remove("virtio.exam");
            assertEquals(bundles, MAY_USE.keySet());
        }
    }

    @TestFactory
    Stream<DynamicTest> arrowsRunDownOnly() {
        return MAY_USE.entrySet().stream()
                .map(
                        arrow ->
                                DynamicTest.dynamicTest(
                                        arrow.getKey(),
                                        () ->
                                                arrow(
                                                        packageRoot(arrow.getKey()),
                                                        arrow.getValue())));
    }

    private static void arrow(String root, List<String> allowed) {
        List<String> packages = new ArrayList<>(allowed);
        packages.add(root + "..");
        DescribedPredicate<JavaClass> upwards =
                resideInAPackage("virtio..")
                        .and(not(resideInAnyPackage(packages.toArray(String[]::new))))
                        .as("are in none of %s", packages);
        noClasses()
                .that()
                .resideInAPackage(root + "..")
                .should()
                .dependOnClassesThat(upwards)
                .check(CLASSES);
    }

    @TestFactory
    Stream<DynamicTest> classesLiveBelowTheirBundlesPackage() {
        return MAY_USE.keySet().stream()
                .map(
                        folder ->
                                DynamicTest.dynamicTest(
                                        folder,
                                        () ->
                                                classes()
                                                        .should()
                                                        .resideInAPackage(
                                                                packageRoot(folder) + "..")
                                                        .check(
                                                                new ClassFileImporter()
                                                                        .importPath(
                                                                                compiled(
                                                                                        folder)))));
    }

    @Test
    void theApiNeedsNothingButTheJdkAndAnnotations() {
        classes()
                .that()
                .resideInAPackage(API)
                .should()
                .onlyDependOnClassesThat()
                .resideInAnyPackage(API, "java..", "org.osgi.annotation..")
                .check(CLASSES);
    }

    @Test
    void onlyVirtioLinuxCallsRestrictedMethods() {
        noClasses()
                .that()
                .resideOutsideOfPackage(LINUX)
                .should()
                .accessTargetWhere(
                        DescribedPredicate.describe(
                                "a method is restricted", ArchitectureTest::isRestricted))
                .check(CLASSES);
    }

    /** The JDK marks them with an annotation of its own, which reaches the running JVM. */
    private static boolean isRestricted(JavaAccess<?> access) {
        if (!access.getTargetOwner().getPackageName().startsWith("java.")) return false;
        return access.getTarget().resolveMember().filter(JavaCodeUnit.class::isInstance).stream()
                .map(member -> ((JavaCodeUnit) member).reflect())
                .map(Executable.class::cast)
                .flatMap(method -> Stream.of(method.getAnnotations()))
                .map(Annotation::annotationType)
                .anyMatch(type -> type.getName().equals("jdk.internal.javac.Restricted"));
    }

    @TestFactory
    Stream<DynamicTest> onlyAnnotatedPackagesAreExported() {
        return MAY_USE.keySet().stream()
                .map(folder -> DynamicTest.dynamicTest(folder, () -> exports(folder)));
    }

    private static void exports(String folder) throws IOException {
        JavaClasses own = new ClassFileImporter().importPath(compiled(folder));
        Set<String> annotated = new TreeSet<>();
        for (JavaClass type : own) {
            JavaPackage of = type.getPackage();
            if (of.isAnnotatedWith(Export.class)) {
                assertTrue(of.isAnnotatedWith(Version.class), of.getName() + " has no @Version");
                annotated.add(of.getName());
            }
        }
        assertEquals(annotated, exported(compiled(folder).resolveSibling("META-INF/MANIFEST.MF")));
    }

    private static Set<String> exported(Path manifest) throws IOException {
        try (InputStream in = Files.newInputStream(manifest)) {
            String exports = new Manifest(in).getMainAttributes().getValue("Export-Package");
            if (exports == null) return Set.of();
            String unquoted = exports.replaceAll("\"[^\"]*\"", "");
            return Stream.of(unquoted.split(","))
                    .map(export -> export.split(";")[0])
                    .collect(Collectors.toCollection(TreeSet::new));
        }
    }

    @Test
    void noJavaFileIsLong() throws IOException {
        List<String> tooLong = new ArrayList<>();
        Files.walkFileTree(
                ROOT,
                new SimpleFileVisitor<>() {
                    @Override
                    public FileVisitResult preVisitDirectory(Path dir, BasicFileAttributes a) {
                        String name = dir.getFileName().toString();
                        boolean skipped = name.equals("target") || name.startsWith(".");
                        return skipped ? FileVisitResult.SKIP_SUBTREE : FileVisitResult.CONTINUE;
                    }

                    @Override
                    public FileVisitResult visitFile(Path file, BasicFileAttributes a)
                            throws IOException {
                        if (file.toString().endsWith(".java")) {
                            try (Stream<String> lines = Files.lines(file)) {
                                long count = lines.count();
                                if (count > MAX_LINES)
                                    tooLong.add(ROOT.relativize(file) + ": " + count);
                            }
                        }
                        return FileVisitResult.CONTINUE;
                    }
                });
        assertEquals(List.of(), tooLong);
    }
}
