package virtio.api;

import java.io.IOException;

/** Something virtio did not work; the message is one sentence for people, with value and limit. */
public class VirtioException extends IOException {
    private static final long serialVersionUID = 1L;

    /** With a sentence that says what and why. */
    public VirtioException(String message) {
        super(message);
    }

    /** With a sentence that says what and why, and what it came from. */
    public VirtioException(String message, Throwable cause) {
        super(message, cause);
    }
}
