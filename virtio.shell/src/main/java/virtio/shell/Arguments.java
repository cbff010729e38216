package virtio.shell;

import org.apache.felix.service.command.CommandSession;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The arguments of a command, checked against its usage line.
 *
 * <p>The line is the grammar: words in capitals are positional, in brackets optional; {@code
 * --json} is a flag, {@code --bs=4k} takes a value. Lines behind it are for who asks for help.
 */
final class Arguments {
    private static final Pattern OPTION = Pattern.compile("--([a-z]+)(=?)");
    private static final Pattern POSITIONAL = Pattern.compile("\\[?\\b[A-Z]{2,}\\b");

    private final String usage;
    private final List<String> positional = new ArrayList<>();
    private final Map<String, String> options = new HashMap<>();

    /** Those of a command, and its usage printed when that is all that is asked for. */
    static Arguments of(CommandSession session, String usage, String... args) {
        Arguments arguments = new Arguments(usage, args);
        if (arguments.help()) {
            session.getConsole().println("usage: " + usage);
        }
        return arguments;
    }

    /** Throws {@link IllegalArgumentException} with the usage line unless the arguments fit it. */
    Arguments(String text, String... args) {
        usage = text.lines().findFirst().orElseThrow();
        Map<String, Boolean> known = new HashMap<>();
        for (Matcher m = OPTION.matcher(usage); m.find(); ) {
            known.put(m.group(1), !m.group(2).isEmpty());
        }
        known.put("help", false);
        for (int i = 0; i < args.length; i++) {
            if (!args[i].startsWith("--")) {
                positional.add(args[i]);
                continue;
            }
            String[] option = args[i].substring(2).split("=", 2);
            Boolean value = known.get(option[0]);
            if (value == null) {
                throw wrong("no option --" + option[0]);
            }
            if (!value) {
                options.put(option[0], "true");
            } else if (option.length == 2) {
                options.put(option[0], option[1]);
            } else if (++i < args.length) {
                options.put(option[0], args[i]);
            } else {
                throw wrong("--" + option[0] + " needs a value");
            }
        }
        int required = 0;
        int possible = 0;
        for (Matcher m = POSITIONAL.matcher(usage); m.find(); possible++) {
            if (!m.group().startsWith("[")) {
                required++;
            }
        }
        if (!has("help") && (positional.size() < required || positional.size() > possible)) {
            throw wrong(
                    "%d arguments, limits are %d and %d"
                            .formatted(positional.size(), required, possible));
        }
    }

    private IllegalArgumentException wrong(String what) {
        return new IllegalArgumentException(what + "; usage: " + usage);
    }

    /** Whether the usage is all that is asked for. */
    boolean help() {
        return has("help");
    }

    boolean has(String option) {
        return options.containsKey(option);
    }

    /** The value of an option, or what it is without. */
    String option(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    /** A number of at least 1. */
    int number(String name, int otherwise) {
        return number(name, otherwise, 1);
    }

    /** A number of at least that. */
    int number(String name, int otherwise, int least) {
        String text = option(name, Integer.toString(otherwise));
        try {
            int value = Integer.parseInt(text);
            if (value >= least) {
                return value;
            }
        } catch (NumberFormatException e) {
            // Said below, as for a number that is too small.
        }
        throw wrong(
                "--%s=%s, limits are %d and %d".formatted(name, text, least, Integer.MAX_VALUE));
    }

    /** Bytes as fio writes them: {@code 4k}, {@code 1m}, {@code 512}. */
    int bytes(String name, String otherwise) {
        String text = option(name, otherwise).toLowerCase(java.util.Locale.ROOT);
        int shift = text.endsWith("k") ? 10 : text.endsWith("m") ? 20 : 0;
        try {
            long value = Long.parseLong(shift == 0 ? text : text.substring(0, text.length() - 1));
            if (value >= 1 && value << shift <= 1 << 30) {
                return (int) (value << shift);
            }
        } catch (NumberFormatException e) {
            // Said below, as for a size out of range.
        }
        throw wrong("--%s=%s, limits are 1 and 1024m".formatted(name, text));
    }

    /** A positional argument, or null. */
    String get(int index) {
        return index < positional.size() ? positional.get(index) : null;
    }
}
