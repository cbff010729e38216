import org.w3c.dom.Element;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import java.util.stream.Stream;

import javax.xml.parsers.DocumentBuilderFactory;

/**
 * Sums the test reports up: {@code MAY-SKIP ROOT}. Fails when a test failed, when one skipped for a
 * reason that the file does not allow, and when there are no reports.
 */
public class Results {
    public static void main(String[] args) throws Exception {
        List<Pattern> maySkip;
        try (Stream<String> lines = Files.lines(Path.of(args[0]))) {
            maySkip =
                    lines.filter(line -> !line.isBlank() && !line.startsWith("#"))
                            .map(Pattern::compile)
                            .toList();
        }
        List<Path> reports;
        try (Stream<Path> files = Files.walk(Path.of(args[1]))) {
            reports = files.filter(f -> f.toString().matches(".*-reports/TEST-.*\\.xml")).toList();
        }
        int passed = 0;
        int failed = 0;
        int skipped = 0;
        int forbidden = 0;
        var parser = DocumentBuilderFactory.newInstance().newDocumentBuilder();
        for (Path report : reports) {
            var tests = parser.parse(report.toFile()).getElementsByTagName("testcase");
            for (int i = 0; i < tests.getLength(); i++) {
                Element test = (Element) tests.item(i);
                String name = test.getAttribute("classname") + "." + test.getAttribute("name");
                if (has(test, "failure") || has(test, "error")) {
                    failed++;
                    System.out.println("failed: " + name);
                } else if (has(test, "skipped")) {
                    skipped++;
                    Element skip = (Element) test.getElementsByTagName("skipped").item(0);
                    // Without the attribute, the reason is the first line of the exception.
                    String reason = skip.getAttribute("message");
                    if (reason.isEmpty())
                        reason = skip.getTextContent().lines().findFirst().orElse("");
                    boolean allowed = maySkip.stream().anyMatch(allows(reason));
                    if (!allowed) forbidden++;
                    System.out.printf(
                            "skipped%s: %s: %s%n", allowed ? "" : " (not allowed)", name, reason);
                } else {
                    passed++;
                }
            }
        }
        System.out.printf("%d passed, %d failed, %d skipped%n", passed, failed, skipped);
        System.exit(failed > 0 || forbidden > 0 || passed == 0 ? 1 : 0);
    }

    private static Predicate<Pattern> allows(String reason) {
        return pattern -> pattern.matcher(reason).find();
    }

    private static boolean has(Element test, String outcome) {
        return test.getElementsByTagName(outcome).getLength() > 0;
    }
}
