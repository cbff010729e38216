package virtio.bench;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.jar.JarFile;

/** What ran and what it showed, as a table for people or as JSON. */
final class Report {
    private final Map<String, Object> header = new LinkedHashMap<>();
    private final List<Map<String, Object>> rows = new ArrayList<>();

    /** With what every benchmark depends on. */
    Report(String benchmark) throws IOException {
        header("benchmark", benchmark);
        Path core = Container.home().resolve("bundle/virtio.ring.jar");
        try (JarFile jar = new JarFile(core.toFile())) {
            String version = jar.getManifest().getMainAttributes().getValue("Bundle-Version");
            header(
                    "virtio",
                    "%s on %s %s"
                            .formatted(
                                    version,
                                    System.getProperty("java.vm.name"),
                                    Runtime.version()));
        }
        header("machine", Machine.describe());
    }

    void header(String name, Object value) {
        header.put(name, value);
    }

    /** Adds a line of names and values, with the same names as the others. */
    void row(Object... namesAndValues) {
        Map<String, Object> row = new LinkedHashMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            row.put((String) namesAndValues[i], namesAndValues[i + 1]);
        }
        rows.add(row);
    }

    void print(boolean json) {
        System.out.print(json ? json() : text());
    }

    String json() {
        StringBuilder json = new StringBuilder("{");
        header.forEach((name, value) -> append(json, name, value));
        json.append("\"rows\":[");
        for (Map<String, Object> row : rows) {
            json.append('{');
            row.forEach((name, value) -> append(json, name, value));
            json.setCharAt(json.length() - 1, '}');
            json.append(',');
        }
        if (rows.isEmpty()) {
            json.append(']');
        } else {
            json.setCharAt(json.length() - 1, ']');
        }
        return json.append("}\n").toString();
    }

    private static void append(StringBuilder json, String name, Object value) {
        json.append('"').append(name).append("\":");
        if (value instanceof Number) {
            json.append(value);
        } else {
            String text = value.toString().replace("\\", "\\\\").replace("\"", "\\\"");
            json.append('"').append(text).append('"');
        }
        json.append(',');
    }

    String text() {
        StringBuilder text = new StringBuilder();
        header.forEach((name, value) -> text.append(name + ": " + value + "\n"));
        if (rows.isEmpty()) {
            return text.toString();
        }
        text.append('\n');
        List<String> names = List.copyOf(rows.getFirst().keySet());
        for (String name : names) {
            text.append(("%" + width(name) + "s").formatted(name));
        }
        for (Map<String, Object> row : rows) {
            text.append('\n');
            for (String name : names) {
                text.append(("%" + width(name) + "s").formatted(show(row.get(name))));
            }
        }
        return text.append('\n').toString();
    }

    private static int width(String name) {
        return Math.max(name.length(), 9) + 2;
    }

    private static String show(Object value) {
        if (value instanceof Double number) {
            return String.format(Locale.ROOT, number >= 1000 ? "%.0f" : "%.3f", number);
        }
        return value.toString();
    }
}
