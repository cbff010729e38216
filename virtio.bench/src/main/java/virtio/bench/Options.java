package virtio.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Options of a benchmark: {@code --name=value}, and {@code --json}. */
final class Options {
    private static final String JSON = "json";

    private final Map<String, String> values;

    /** Throws {@link IllegalArgumentException} for an option that has no default. */
    Options(Map<String, String> defaults, String... args) {
        values = new HashMap<>(defaults);
        for (String arg : args) {
            String[] option = arg.startsWith("--") ? arg.substring(2).split("=", 2) : new String[0];
            boolean json = option.length == 1 && option[0].equals(JSON);
            if (!json && (option.length != 2 || !defaults.containsKey(option[0]))) {
                throw new IllegalArgumentException("no option " + arg);
            }
            values.put(option[0], json ? "" : option[1]);
        }
    }

    boolean json() {
        return values.containsKey(JSON);
    }

    /** A number from 1 to {@code most}. */
    int number(String name, int most) {
        return number(name, values.get(name), most);
    }

    /** Numbers from 1 to {@code most}, between commas. */
    List<Integer> numbers(String name, int most) {
        List<Integer> numbers = new ArrayList<>();
        for (String text : values.get(name).split(",", -1)) {
            numbers.add(number(name, text, most));
        }
        return numbers;
    }

    private static int number(String name, String text, int most) {
        try {
            int value = Integer.parseInt(text);
            if (value >= 1 && value <= most) {
                return value;
            }
        } catch (NumberFormatException e) {
            // Said below, as for a number out of range.
        }
        throw new IllegalArgumentException(
                "--%s=%s, limits are 1 and %d".formatted(name, text, most));
    }

    /** Words out of those known, between commas. */
    List<String> words(String name, String... known) {
        List<String> words = List.of(values.get(name).split(",", -1));
        for (String word : words) {
            if (!Arrays.asList(known).contains(word)) {
                throw new IllegalArgumentException(
                        "--%s=%s, known are %s".formatted(name, word, String.join(", ", known)));
            }
        }
        return words;
    }
}
