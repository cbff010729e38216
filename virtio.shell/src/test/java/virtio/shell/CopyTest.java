package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;

import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Random;

/** Copies between files: what disks do is seen in the container. */
class CopyTest {
    @TempDir Path folder;

    private final Console console = new Console();
    private final byte[] content = new byte[(1 << 20) + 7];
    private Path file;

    @BeforeEach
    void write() throws Exception {
        new Random(5).nextBytes(content);
        file = Files.write(folder.resolve("a"), content);
    }

    private void copy(Path from, Path to) throws Exception {
        new Copy(new Disks()).copy(console.session, "file:" + from, "file:" + to);
    }

    @Test
    void aFileBecomesAsTheOther() throws Exception {
        Path other = Files.write(folder.resolve("b"), new byte[content.length + 1]);
        copy(file, other);
        assertArrayEquals(content, Files.readAllBytes(other));
        assertTrue(console.printed().contains(content.length + " bytes"), console::printed);
    }

    @Test
    void aFileIsNotCopiedOntoItselfByWhateverName() throws Exception {
        Path link = Files.createSymbolicLink(folder.resolve("link"), file);
        Path hard = Files.createLink(folder.resolve("hard"), file);
        for (Path to :
                new Path[] {
                    file, link, hard, folder.resolve("../%s/a".formatted(folder.getFileName()))
                }) {
            var e = assertThrows(VirtioException.class, () -> copy(file, to));
            assertEquals(
                    "file:%s and file:%s are the same file".formatted(file, to), e.getMessage());
            assertArrayEquals(content, Files.readAllBytes(file));
        }
    }

    @Test
    void aSourceThatIsNotThereLeavesTheTargetAsItIs() throws Exception {
        assertThrows(NoSuchFileException.class, () -> copy(folder.resolve("none"), file));
        assertArrayEquals(content, Files.readAllBytes(file));
    }
}
