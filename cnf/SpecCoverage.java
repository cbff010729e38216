import org.w3c.dom.Element;
import org.w3c.dom.Node;
import org.w3c.dom.NodeList;

import java.lang.classfile.Annotation;
import java.lang.classfile.AnnotationElement;
import java.lang.classfile.AnnotationValue;
import java.lang.classfile.AttributedElement;
import java.lang.classfile.Attributes;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassModel;
import java.lang.classfile.MethodModel;
import java.lang.reflect.AccessFlag;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import javax.xml.parsers.DocumentBuilderFactory;

/**
 * Holds {@code docs/spec-coverage.md} to the clause ids that tests carry as tags: {@code
 * check|write ROOT}.
 *
 * <p>Tags come from the compiled tests, results from the reports of the last run. The check leaves
 * results out: they depend on what the machine has. It fails for a tag or reason that names no
 * clause, for an obligation of a complete area that has not either a test or a reason, and for a
 * table that does not say what the tags say.
 */
public class SpecCoverage {
    /** Every MUST and MUST NOT of these areas has a test, or a reason why it cannot apply. */
    private static final Set<String> COMPLETE =
            Set.of("CORE", "SPLIT", "PACKED", "SHM", "PCI", "MMIO", "BLK", "NET");

    private record Clause(String id, String keywords, String section, String says) {
        String area() {
            return id.split("-")[1];
        }

        boolean must() {
            return keywords.contains("MUST");
        }
    }

    private record Type(
            String module, String parent, boolean concrete, Set<String> tags, Methods methods) {}

    /** Tags by method. */
    private static final class Methods extends TreeMap<String, Set<String>> {}

    /** A test as the table names it: by where it is declared. */
    private record Test(String declared, String method) implements Comparable<Test> {
        String name() {
            return "`%s.%s`".formatted(declared.substring(declared.lastIndexOf('.') + 1), method);
        }

        @Override
        public int compareTo(Test other) {
            return toString().compareTo(other.toString());
        }
    }

    private final Path root;
    private final Map<String, Clause> clauses = new LinkedHashMap<>();
    private final Map<String, String> reasons = new HashMap<>();
    private final List<String> faults = new ArrayList<>();

    /** By module and name: the same name may be there twice. */
    private final Map<String, Type> types = new TreeMap<>();

    /** By clause: its tests, each with the result by module. */
    private final Map<String, Map<Test, Map<String, String>>> tests = new HashMap<>();

    /** Outcomes by {@code module class method}. */
    private final Map<String, List<String>> outcomes = new HashMap<>();

    private SpecCoverage(Path root) {
        this.root = root;
    }

    public static void main(String[] args) throws Exception {
        new SpecCoverage(Path.of(args[1]).toRealPath()).run(args[0].equals("write"));
    }

    private void run(boolean write) throws Exception {
        readClauses();
        List<String> modules = modules();
        for (String module : modules) {
            readTypes(module, "classes");
            if (!readTypes(module, "test-classes")
                    && Files.exists(root.resolve(module).resolve("src/test/java"))) {
                System.out.println("spec coverage needs the compiled tests of " + module);
                System.exit(write ? 1 : 0);
            }
            readReports(module);
        }
        join();
        reasons.keySet().stream()
                .filter(tests::containsKey)
                .forEach(id -> faults.add(id + " has a test: it needs no reason any more"));
        for (Clause clause : clauses.values()) {
            if (COMPLETE.contains(clause.area())
                    && clause.must()
                    && !tests.containsKey(clause.id)
                    && !reasons.containsKey(clause.id)) {
                faults.add("%s (%s) has neither test nor reason".formatted(clause.id, clause.says));
            }
        }
        Path file = root.resolve("docs/spec-coverage.md");
        List<String> table = table();
        if (write) {
            Files.write(file, table);
        } else if (!withoutResults(table).equals(withoutResults(Files.readAllLines(file)))) {
            faults.add("docs/spec-coverage.md is not what the tags say: run cnf/spec-coverage");
        }
        faults.forEach(System.err::println);
        System.exit(faults.isEmpty() ? 0 : 1);
    }

    private List<String> modules() throws Exception {
        try (Stream<Path> folders = Files.list(root)) {
            return folders.filter(folder -> Files.exists(folder.resolve("pom.xml")))
                    .map(folder -> folder.getFileName().toString())
                    .sorted()
                    .toList();
        }
    }

    private void readClauses() throws Exception {
        for (String[] row : rows("docs/spec/clauses.tsv")) {
            String says = row.length > 3 ? row[3] : "";
            clauses.put(row[0], new Clause(row[0], row[1], row[2], says));
        }
        for (String[] row : rows("docs/spec/cannot-apply.tsv")) {
            for (String id : row[0].split(" ")) {
                known(id, "docs/spec/cannot-apply.tsv");
                reasons.put(id, row[1]);
            }
        }
    }

    private List<String[]> rows(String file) throws Exception {
        try (Stream<String> lines = Files.lines(root.resolve(file))) {
            return lines.filter(line -> !line.startsWith("#"))
                    .map(line -> line.split("\t"))
                    .toList();
        }
    }

    private void known(String id, String where) {
        if (!clauses.containsKey(id)) {
            faults.add("%s: there is no clause %s".formatted(where, id));
        }
    }

    private boolean readTypes(String module, String output) throws Exception {
        Path folder = root.resolve(module).resolve("target").resolve(output);
        if (!Files.isDirectory(folder)) {
            return false;
        }
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.filter(f -> f.toString().endsWith(".class")).toList()) {
                ClassModel model = ClassFile.of().parse(file);
                Methods methods = new Methods();
                for (MethodModel method : model.methods()) {
                    methods.put(method.methodName().stringValue(), tags(method));
                }
                types.put(
                        module + " " + name(model.thisClass().asInternalName()),
                        new Type(
                                module,
                                model.superclass().map(c -> name(c.asInternalName())).orElse(""),
                                output.equals("test-classes")
                                        && !model.flags().has(AccessFlag.ABSTRACT),
                                tags(model),
                                methods));
            }
        }
        return true;
    }

    private static String name(String internal) {
        return internal.replace('/', '.');
    }

    private static Set<String> tags(AttributedElement element) {
        Set<String> tags = new TreeSet<>();
        element.findAttribute(Attributes.runtimeVisibleAnnotations())
                .ifPresent(all -> all.annotations().forEach(a -> tags(a, tags)));
        tags.removeIf(tag -> !tag.matches("(DRV|DEV)-.*"));
        return tags;
    }

    private static void tags(Annotation annotation, Set<String> into) {
        String type = annotation.className().stringValue();
        if (type.endsWith("/Tag;") || type.endsWith("/Tags;")) {
            for (AnnotationElement element : annotation.elements()) {
                tags(element.value(), into);
            }
        }
    }

    private static void tags(AnnotationValue value, Set<String> into) {
        switch (value) {
            case AnnotationValue.OfString tag -> into.add(tag.stringValue());
            case AnnotationValue.OfAnnotation one -> tags(one.annotation(), into);
            case AnnotationValue.OfArray many -> many.values().forEach(v -> tags(v, into));
            default -> {}
        }
    }

    private void readReports(String module) throws Exception {
        var builder = DocumentBuilderFactory.newInstance().newDocumentBuilder();
        for (String reports : List.of("surefire-reports", "failsafe-reports")) {
            Path folder = root.resolve(module).resolve("target").resolve(reports);
            if (!Files.isDirectory(folder)) {
                continue;
            }
            try (Stream<Path> files = Files.list(folder)) {
                for (Path file : files.filter(f -> f.toString().endsWith(".xml")).toList()) {
                    NodeList cases = builder.parse(file.toFile()).getElementsByTagName("testcase");
                    for (int i = 0; i < cases.getLength(); i++) {
                        Element one = (Element) cases.item(i);
                        String method = one.getAttribute("name").split("[({\\[]")[0];
                        String key = module + " " + one.getAttribute("classname") + " " + method;
                        outcomes.computeIfAbsent(key, k -> new ArrayList<>()).add(outcome(one));
                    }
                }
            }
        }
    }

    private static String outcome(Element testcase) {
        for (Node child = testcase.getFirstChild(); child != null; child = child.getNextSibling()) {
            switch (child.getNodeName()) {
                case "failure", "error" -> {
                    return "failed";
                }
                case "skipped" -> {
                    return "skipped";
                }
                default -> {}
            }
        }
        return "passed";
    }

    private String result(String key) {
        List<String> all = outcomes.getOrDefault(key, List.of());
        if (all.isEmpty()) {
            return "not run";
        }
        if (all.contains("failed")) {
            return "failed";
        }
        long skipped = all.stream().filter("skipped"::equals).count();
        return skipped == 0
                ? "passed"
                : skipped == all.size()
                        ? "skipped"
                        : "passed, %d of %d skipped".formatted(skipped, all.size());
    }

    /** Gives each concrete test class the tests that it declares or inherits. */
    private void join() {
        for (var entry : types.entrySet()) {
            Type concrete = entry.getValue();
            if (!concrete.concrete) {
                continue;
            }
            String type = entry.getKey().split(" ")[1];
            Set<String> seen = new HashSet<>();
            Set<String> ofTypes = new TreeSet<>();
            for (String at = type; ; at = find(concrete.module, at).parent) {
                Type declaring = find(concrete.module, at);
                if (declaring == null) {
                    break;
                }
                ofTypes.addAll(declaring.tags);
                for (var method : declaring.methods.entrySet()) {
                    if (!seen.add(method.getKey())) {
                        continue;
                    }
                    Set<String> tags = new TreeSet<>(method.getValue());
                    String key = concrete.module + " " + type + " " + method.getKey();
                    if (!tags.isEmpty() || outcomes.containsKey(key)) {
                        tags.addAll(ofTypes);
                    }
                    for (String tag : tags) {
                        known(tag, at + "." + method.getKey());
                        tests.computeIfAbsent(tag, t -> new TreeMap<>())
                                .computeIfAbsent(
                                        new Test(at, method.getKey()), t -> new TreeMap<>())
                                .put(concrete.module, result(key));
                    }
                }
            }
        }
    }

    private Type find(String module, String name) {
        Type own = types.get(module + " " + name);
        return own != null ? own : types.get("virtio.tck " + name);
    }

    private List<String> table() {
        List<String> lines = new ArrayList<>();
        lines.add("# Clause by clause");
        lines.add("");
        lines.add("Generated by `cnf/spec-coverage` after a `mvn verify`; not edited by hand.");
        lines.add(
                "A test names the clauses of virtio 1.4 that it holds as tags, as `DRV-CORE-005`.");
        lines.add("The clauses are in [`spec/clauses.tsv`](spec/clauses.tsv),");
        lines.add(
                "the reasons why one cannot apply in"
                        + " [`spec/cannot-apply.tsv`](spec/cannot-apply.tsv).");
        lines.add("A contract of the conformance kit counts once for each transport that runs it.");
        lines.add("Results are those of the machine that generated this.");
        lines.add("");
        lines.add(
                "| area | end | MUST and MUST NOT | tested | cannot apply | open | others, tested"
                        + " |");
        lines.add("|---|---|---|---|---|---|---|");
        Map<String, List<Clause>> areas =
                clauses.values().stream()
                        .collect(
                                Collectors.groupingBy(
                                        Clause::area, LinkedHashMap::new, Collectors.toList()));
        List<String> without = new ArrayList<>();
        areas.forEach(
                (area, all) -> {
                    if (all.stream().noneMatch(c -> tests.containsKey(c.id))
                            && all.stream().noneMatch(c -> reasons.containsKey(c.id))) {
                        without.add(area);
                        return;
                    }
                    summary(lines, area, "DRV", "driver", all);
                    summary(lines, area, "DEV", "device", all);
                });
        if (!without.isEmpty()) {
            lines.add("");
            lines.add("No test names a clause of %s yet.".formatted(String.join(", ", without)));
        }
        areas.forEach(
                (area, all) -> {
                    if (!without.contains(area)) {
                        lines.add("");
                        lines.add("## " + area);
                        lines.add("");
                        lines.add("| clause | keywords | what it asks for | tests | result |");
                        lines.add("|---|---|---|---|---|");
                        all.forEach(clause -> lines.add(row(clause)));
                    }
                });
        return lines;
    }

    private void summary(
            List<String> lines, String area, String role, String end, List<Clause> all) {
        List<Clause> own = all.stream().filter(c -> c.id.startsWith(role)).toList();
        List<Clause> must = own.stream().filter(Clause::must).toList();
        if (own.isEmpty()) {
            return;
        }
        long tested = must.stream().filter(c -> tests.containsKey(c.id)).count();
        long reasoned =
                must.stream()
                        .filter(c -> !tests.containsKey(c.id) && reasons.containsKey(c.id))
                        .count();
        long others = own.stream().filter(c -> !c.must() && tests.containsKey(c.id)).count();
        lines.add(
                "| %s | %s | %d | %d | %d | %d | %d of %d |"
                        .formatted(
                                area,
                                end,
                                must.size(),
                                tested,
                                reasoned,
                                must.size() - tested - reasoned,
                                others,
                                own.size() - must.size()));
    }

    private String row(Clause clause) {
        Map<Test, Map<String, String>> all = tests.getOrDefault(clause.id, Map.of());
        String names =
                all.entrySet().stream()
                        .map(
                                t ->
                                        t.getKey().name()
                                                + " in "
                                                + String.join(", ", t.getValue().keySet()))
                        .collect(Collectors.joining("<br>"));
        String results =
                all.values().stream().map(SpecCoverage::result).collect(Collectors.joining("<br>"));
        String reason = reasons.get(clause.id);
        if (reason != null) {
            names += "cannot apply: " + reason;
        }
        return "| %s | %s | %s | %s | %s |"
                .formatted(
                        clause.id,
                        clause.keywords,
                        clause.says.isEmpty() ? clause.section : clause.says,
                        names,
                        results);
    }

    private static String result(Map<String, String> byModule) {
        Set<String> different = new TreeSet<>(byModule.values());
        return different.size() == 1
                ? different.iterator().next()
                : byModule.entrySet().stream()
                        .map(e -> e.getKey() + ": " + e.getValue())
                        .collect(Collectors.joining("; "));
    }

    private static List<String> withoutResults(List<String> lines) {
        return lines.stream()
                .map(
                        line ->
                                line.startsWith("| D")
                                        ? line.substring(
                                                0, line.lastIndexOf('|', line.length() - 2))
                                        : line)
                .toList();
    }
}
