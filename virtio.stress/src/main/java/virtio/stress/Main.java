package virtio.stress;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * Runs the tests once for each layout of the ring, in processes of their own: {@code
 * "off|sanity|quick|default|tough [jcstress options]"}.
 */
public final class Main {
    private static final List<String> LAYOUTS =
            List.of(
                    "split",
                    "split+event",
                    "packed",
                    "packed+event",
                    "split+event+inorder",
                    "packed+event+inorder");

    private Main() {}

    /** Exits with 1 when a forbidden outcome was seen. */
    public static void main(String[] args) throws IOException, InterruptedException {
        List<String> words = List.of(args[0].split(" "));
        if (words.getFirst().equals("off")) {
            System.out.println("jcstress runs with -Dstress=sanity, quick, default or tough");
            return;
        }
        boolean failed = false;
        for (String layout : LAYOUTS) {
            System.out.println("\n=== " + layout);
            List<String> command = new ArrayList<>();
            command.add(ProcessHandle.current().info().command().orElse("java"));
            command.addAll(
                    List.of(
                            "--enable-native-access=ALL-UNNAMED",
                            "-cp",
                            System.getProperty("java.class.path")));
            command.add("org.openjdk.jcstress.Main");
            command.addAll(List.of("-m", words.getFirst(), "-r", "jcstress-" + layout));
            command.addAll(
                    List.of(
                            "-jvmArgsPrepend",
                            "--enable-native-access=ALL-UNNAMED -Dvirtio.features=" + layout));
            command.addAll(words.subList(1, words.size()));
            failed |= new ProcessBuilder(command).inheritIO().start().waitFor() != 0;
        }
        System.exit(failed ? 1 : 0);
    }
}
