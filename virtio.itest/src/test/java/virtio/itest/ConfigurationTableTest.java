package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;
import org.w3c.dom.Element;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import javax.xml.parsers.DocumentBuilderFactory;

/** The README's table has every key that a component here may be configured by, and its default. */
class ConfigurationTableTest {
    private static final Pattern ROW =
            Pattern.compile("(?m)^\\| `(virtio\\.[a-z.]+)` \\| `(\\w+)` \\| (?:`(.+?)`)? *\\|");

    @Test
    void itIsWhatTheComponentsSay() throws Exception {
        Set<String> said = new TreeSet<>();
        for (Path file : metatypes()) {
            Document type =
                    DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(file.toFile());
            Element designate = (Element) type.getElementsByTagName("Designate").item(0);
            String pid = designate.getAttribute("pid") + designate.getAttribute("factoryPid");
            var keys = type.getElementsByTagName("AD");
            for (int i = 0; i < keys.getLength(); i++) {
                Element key = (Element) keys.item(i);
                said.add(line(pid, key.getAttribute("id"), key.getAttribute("default")));
            }
        }
        assertFalse(said.isEmpty(), "no component was found");
        Set<String> written =
                ROW.matcher(Files.readString(Path.of("../README.md")))
                        .results()
                        .map(ConfigurationTableTest::line)
                        .collect(Collectors.toCollection(TreeSet::new));
        assertEquals(String.join("\n", said), String.join("\n", written));
    }

    private static List<Path> metatypes() throws Exception {
        try (Stream<Path> files = Files.find(Path.of(".."), 6, (path, _) -> isMetatype(path))) {
            return files.toList();
        }
    }

    private static boolean isMetatype(Path path) {
        Path folder = path.getParent();
        return path.toString().endsWith(".xml")
                && folder.endsWith("target/classes/OSGI-INF/metatype")
                && folder.getNameCount() == 6;
    }

    private static String line(MatchResult row) {
        return line(row.group(1), row.group(2), row.group(3) == null ? "" : row.group(3));
    }

    private static String line(String pid, String key, String otherwise) {
        return pid + " " + key + " = " + otherwise;
    }
}
