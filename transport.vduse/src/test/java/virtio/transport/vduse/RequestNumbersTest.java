package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

/** Request codes as a C compiler makes them of linux/vhost.h and linux/vduse.h. */
class RequestNumbersTest {
    @Test
    void vhost() {
        assertEquals(0x8008AF00, VhostVdpaFile.GET_FEATURES);
        assertEquals(0x4008AF00, VhostVdpaFile.SET_FEATURES);
        assertEquals(0xAF01, VhostVdpaFile.SET_OWNER);
        assertEquals(0x4008AF10, VhostVdpaFile.SET_VRING_NUM);
        assertEquals(0x4028AF11, VhostVdpaFile.SET_VRING_ADDR);
        assertEquals(0x4008AF12, VhostVdpaFile.SET_VRING_BASE);
        assertEquals(0x4008AF20, VhostVdpaFile.SET_VRING_KICK);
        assertEquals(0x4008AF21, VhostVdpaFile.SET_VRING_CALL);
        assertEquals(0x4008AF25, VhostVdpaFile.SET_BACKEND_FEATURES);
        assertEquals(0x8008AF26, VhostVdpaFile.GET_BACKEND_FEATURES);
        assertEquals(0x8004AF70, VhostVdpaFile.GET_DEVICE_ID);
        assertEquals(0x8001AF71, VhostVdpaFile.GET_STATUS);
        assertEquals(0x4001AF72, VhostVdpaFile.SET_STATUS);
        assertEquals(0x8008AF73, VhostVdpaFile.GET_CONFIG);
        assertEquals(0x4008AF74, VhostVdpaFile.SET_CONFIG);
        assertEquals(0x4008AF75, VhostVdpaFile.SET_VRING_ENABLE);
        assertEquals(0x8002AF76, VhostVdpaFile.GET_VRING_NUM);
        assertEquals(0x4004AF77, VhostVdpaFile.SET_CONFIG_CALL);
        assertEquals(0x8010AF78, VhostVdpaFile.GET_IOVA_RANGE);
        assertEquals(0x8004AF79, VhostVdpaFile.GET_CONFIG_SIZE);
        assertEquals(0x4008AF7C, VhostVdpaFile.SET_GROUP_ASID);
        assertEquals(0xAF7D, VhostVdpaFile.SUSPEND);
        assertEquals(0x8004AF80, VhostVdpaFile.GET_VQS_COUNT);
        assertEquals(0x8004AF81, VhostVdpaFile.GET_GROUP_NUM);
        assertEquals(0xC008AF82, VhostVdpaFile.GET_VRING_SIZE);
    }

    @Test
    void vduse() {
        assertEquals(0x40088101, VduseControl.SET_API_VERSION);
        assertEquals(0x41508102, VduseControl.CREATE_DEV);
        assertEquals(0x41008103, VduseControl.DESTROY_DEV);
        assertEquals(0xC0208110, VduseFile.IOTLB_GET_FD);
        assertEquals(0x80088111, VduseFile.DEV_GET_FEATURES);
        assertEquals(0x40088112, VduseFile.DEV_SET_CONFIG);
        assertEquals(0x8113, VduseFile.DEV_INJECT_CONFIG_IRQ);
        assertEquals(0x40208114, VduseFile.VQ_SETUP);
        assertEquals(0xC0308115, VduseFile.VQ_GET_INFO);
        assertEquals(0x40088116, VduseFile.VQ_SETUP_KICKFD);
        assertEquals(0x40048117, VduseFile.VQ_INJECT_IRQ);
    }
}
