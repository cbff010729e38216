/*
 * A vhost-user-blk front-end built on libblkio: the reference that the platform's own front-end is
 * measured against, and a foreign driver for its back-end.
 *
 *   blkio_bench bench  SOCKET [--iodepth=32] [--bs=4096] [--runtime=2] [--mode=poll|event]
 *   blkio_bench verify SOCKET [--iodepth=16] [--bytes=67108864] [--ops=20000] [--seed=1]
 *
 * bench reads at random and prints one line of JSON. verify overwrites the first --bytes of the
 * disk, keeps a copy in memory and fails on the first byte that differs.
 * Exit status: 0 done, 1 failed, 2 wrong use.
 */
#define _GNU_SOURCE
#include <blkio.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEPTH 1024
#define SECTOR 512ULL

static struct blkio *blkio;
static struct blkioq *queue;
static int completion_fd;
static char *memory;
static uint64_t capacity_bytes;
static uint64_t random_state;

static void fail(const char *what)
{
    fprintf(stderr, "blkio_bench: %s: %s\n", what, blkio_get_error_msg());
    exit(1);
}

static uint64_t now_nanos(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static uint64_t random_below(uint64_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint64_t)(((unsigned __int128)random_state * bound) >> 64);
}

static void open_disk(const char *path, uint64_t buffer_bytes)
{
    if (blkio_create("virtio-blk-vhost-user", &blkio) < 0) fail("create");
    if (blkio_set_str(blkio, "path", path) < 0) fail("set path");
    if (blkio_connect(blkio) < 0) fail("connect");
    if (blkio_set_int(blkio, "num-queues", 1) < 0) fail("set num-queues");
    if (blkio_start(blkio) < 0) fail("start");
    if (blkio_get_uint64(blkio, "capacity", &capacity_bytes) < 0) fail("get capacity");
    uint64_t alignment;
    if (blkio_get_uint64(blkio, "mem-region-alignment", &alignment) < 0) fail("get alignment");
    struct blkio_mem_region region;
    buffer_bytes = (buffer_bytes + alignment - 1) / alignment * alignment;
    if (blkio_alloc_mem_region(blkio, &region, buffer_bytes) < 0) fail("alloc memory");
    if (blkio_map_mem_region(blkio, &region) < 0) fail("map memory");
    memory = region.addr;
    queue = blkio_get_queue(blkio, 0);
    completion_fd = blkioq_get_completion_fd(queue);
}

static void stuck(int signal)
{
    (void)signal;
    static const char text[] = "blkio_bench: not done within the time limit: back-end gone?\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(1);
    _exit(1);
}

/* A vanished back-end goes unnoticed by libblkio: nothing completes any more. */
static void limit_time(unsigned seconds)
{
    signal(SIGALRM, stuck);
    alarm(seconds);
}

/* Submits what is queued and returns at least one completion. */
static int wait_completions(struct blkio_completion *done, int max, bool event)
{
    for (;;) {
        int n = blkioq_do_io(queue, done, 0, max, NULL);
        if (n < 0) fail("do_io");
        if (n > 0) return n;
        if (event) {
            uint64_t count;
            struct pollfd p = {.fd = completion_fd, .events = POLLIN};
            poll(&p, 1, -1);
            if (read(completion_fd, &count, sizeof count) < 0 && errno != EAGAIN) {
                perror("blkio_bench: read completion fd");
                exit(1);
            }
        }
    }
}

/* Log-linear histogram: 32 buckets per power of two, so 3 % wide. */
static uint64_t histogram[64 * 64];

static void record(uint64_t nanos)
{
    int power = nanos < 64 ? 0 : 58 - __builtin_clzll(nanos);
    histogram[power * 64 + (nanos >> power)]++;
}

static double percentile(double p, uint64_t count)
{
    uint64_t seen = 0;
    for (int i = 0; i < 64 * 64; i++) {
        seen += histogram[i];
        if (seen > 0 && seen >= p * count) return (double)((uint64_t)(i % 64) << (i / 64));
    }
    return 0;
}

static int bench(const char *path, int depth, uint64_t block, double seconds, bool event)
{
    static struct blkio_completion done[MAX_DEPTH];
    static uint64_t submitted[MAX_DEPTH];
    limit_time((unsigned)seconds + 10);
    open_disk(path, depth * block);
    uint64_t blocks = capacity_bytes / block;
    if (blocks == 0) {
        fprintf(stderr, "blkio_bench: capacity %llu below one block\n",
                (unsigned long long)capacity_bytes);
        return 1;
    }
    blkioq_set_completion_fd_enabled(queue, event);
    uint64_t warm = now_nanos() + 200000000ULL, start = 0, end = 0, now = warm - 200000000ULL;
    uint64_t count = 0;
    for (int i = 0; i < depth; i++) {
        submitted[i] = now;
        blkioq_read(queue, random_below(blocks) * block, memory + i * block, block,
                    (void *)(intptr_t)i, 0);
    }
    while (start == 0 || now < end) {
        int n = wait_completions(done, depth, event);
        now = now_nanos();
        if (start == 0 && now >= warm) {
            start = now;
            end = start + (uint64_t)(seconds * 1e9);
            count = 0;
            memset(histogram, 0, sizeof histogram);
        }
        for (int i = 0; i < n; i++) {
            if (done[i].ret != 0) {
                fprintf(stderr, "blkio_bench: read: %s\n", strerror(-done[i].ret));
                return 1;
            }
            int slot = (int)(intptr_t)done[i].user_data;
            record(now - submitted[slot]);
            submitted[slot] = now;
            blkioq_read(queue, random_below(blocks) * block, memory + slot * block, block,
                        (void *)(intptr_t)slot, 0);
        }
        count += n;
    }
    double elapsed = (now - start) / 1e9;
    printf("{\"driver\":\"libblkio virtio-blk-vhost-user\",\"rw\":\"randread\",\"bs\":%llu,"
           "\"iodepth\":%d,\"mode\":\"%s\",\"seconds\":%.3f,\"ios\":%llu,\"iops\":%.0f,"
           "\"latencyNanos\":{\"p50\":%.0f,\"p99\":%.0f,\"p999\":%.0f}}\n",
           (unsigned long long)block, depth, event ? "event" : "poll", elapsed,
           (unsigned long long)count, count / elapsed, percentile(0.5, count),
           percentile(0.99, count), percentile(0.999, count));
    return 0;
}

/* ---- verify: every slot owns a stripe of the disk and a copy of what it must hold ---- */

enum kind { READ, WRITE, WRITEV, WRITE_ZEROES, DISCARD, FLUSH, KINDS };
static const char *const kind_names[] = {
    "read", "write", "writev", "write-zeroes", "discard", "flush"};

#define PIECES 4

static struct slot {
    enum kind kind;
    uint64_t offset, length; /* bytes, within the disk */
    struct iovec pieces[PIECES];
    char *buffer;
} slots[MAX_DEPTH];

static char *expected;
static char *unknown; /* one flag per sector: discarded, so any content is right */
static uint64_t per_kind[KINDS];
static bool refused[KINDS]; /* not among the features the back-end offers */

static void submit(int index, uint64_t stripe, uint64_t max_length)
{
    struct slot *s = &slots[index];
    void *user = (void *)(intptr_t)index;
    s->kind = random_below(KINDS + 2);
    if (s->kind >= KINDS || refused[s->kind]) s->kind = random_below(2) ? READ : WRITE;
    per_kind[s->kind]++;
    uint64_t sectors = 1 + random_below(max_length / SECTOR);
    uint64_t first = random_below((stripe - sectors * SECTOR) / SECTOR + 1);
    s->length = sectors * SECTOR;
    s->offset = index * stripe + first * SECTOR;
    char *want = expected + s->offset;
    char *flags = unknown + s->offset / SECTOR;
    if (s->kind == WRITE || s->kind == WRITEV) {
        uint64_t seed = random_below(UINT64_MAX);
        for (uint64_t i = 0; i < s->length; i += 8) {
            uint64_t word = seed * (i + 1) ^ (s->offset + i);
            memcpy(s->buffer + i, &word, 8);
        }
        memcpy(want, s->buffer, s->length);
        memset(flags, 0, sectors);
    }
    switch (s->kind) {
    case READ:
        memset(s->buffer, 0x5a, s->length);
        blkioq_read(queue, s->offset, s->buffer, s->length, user, 0);
        break;
    case WRITE:
        blkioq_write(queue, s->offset, s->buffer, s->length, user, 0);
        break;
    case WRITEV: {
        uint64_t at = 0, share = s->length / PIECES / SECTOR * SECTOR;
        for (int i = 0; i < PIECES; i++) {
            uint64_t n = i == PIECES - 1 ? s->length - at : share;
            s->pieces[i] = (struct iovec){s->buffer + at, n};
            at += n;
        }
        if (share == 0) blkioq_write(queue, s->offset, s->buffer, s->length, user, 0);
        else blkioq_writev(queue, s->offset, s->pieces, PIECES, user, 0);
        break;
    }
    case WRITE_ZEROES:
        memset(want, 0, s->length);
        memset(flags, 0, sectors);
        blkioq_write_zeroes(queue, s->offset, s->length, user, 0);
        break;
    case DISCARD:
        memset(flags, 1, sectors);
        blkioq_discard(queue, s->offset, s->length, user, 0);
        break;
    default:
        blkioq_flush(queue, user, 0);
    }
}

static bool check(struct slot *s)
{
    for (uint64_t i = 0; i < s->length; i += SECTOR) {
        uint64_t at = s->offset + i;
        if (!unknown[at / SECTOR] && memcmp(s->buffer + i, expected + at, SECTOR) != 0) {
            fprintf(stderr, "blkio_bench: sector %llu differs from what was written\n",
                    (unsigned long long)(at / SECTOR));
            return false;
        }
    }
    return true;
}

static int verify(const char *path, int depth, uint64_t bytes, uint64_t ops)
{
    static struct blkio_completion done[MAX_DEPTH];
    const uint64_t max_length = 128 * 1024;
    limit_time(60);
    open_disk(path, depth * max_length);
    if (bytes > capacity_bytes) bytes = capacity_bytes;
    uint64_t stripe = bytes / depth / SECTOR * SECTOR;
    if (stripe < max_length) {
        fprintf(stderr, "blkio_bench: %llu bytes over %d requests leave less than %llu each\n",
                (unsigned long long)bytes, depth, (unsigned long long)max_length);
        return 1;
    }
    expected = calloc(1, bytes);
    unknown = malloc(bytes / SECTOR);
    memset(unknown, 1, bytes / SECTOR);
    blkioq_set_completion_fd_enabled(queue, true);
    uint64_t issued = 0;
    for (int i = 0; i < depth; i++) {
        slots[i].buffer = memory + i * max_length;
        submit(i, stripe, max_length);
        issued++;
    }
    int in_flight = depth;
    while (in_flight > 0) {
        int n = wait_completions(done, depth, true);
        for (int i = 0; i < n; i++) {
            struct slot *s = &slots[(intptr_t)done[i].user_data];
            if (done[i].ret == -ENOTSUP && (s->kind == WRITE_ZEROES || s->kind == DISCARD)) {
                refused[s->kind] = true;
                per_kind[s->kind] = 0;
                memset(unknown + s->offset / SECTOR, 1, s->length / SECTOR);
            } else if (done[i].ret != 0) {
                fprintf(stderr, "blkio_bench: %s at byte %llu, %llu bytes: %s\n",
                        kind_names[s->kind], (unsigned long long)s->offset,
                        (unsigned long long)s->length, strerror(-done[i].ret));
                return 1;
            }
            if (s->kind == READ && !check(s)) return 1;
            if (issued < ops) {
                submit(s - slots, stripe, max_length);
                issued++;
            } else {
                in_flight--;
            }
        }
    }
    blkioq_flush(queue, NULL, 0);
    wait_completions(done, 1, true);
    /* Read everything back once, after the flush. */
    uint64_t checked = 0;
    for (uint64_t at = 0; at < stripe * depth; at += max_length) {
        struct slot *s = &slots[0];
        s->offset = at;
        s->length = stripe * depth - at < max_length ? stripe * depth - at : max_length;
        blkioq_read(queue, s->offset, s->buffer, s->length, NULL, 0);
        wait_completions(done, 1, true);
        if (done[0].ret != 0 || !check(s)) {
            fprintf(stderr, "blkio_bench: final read at byte %llu failed\n",
                    (unsigned long long)at);
            return 1;
        }
        for (uint64_t i = 0; i < s->length; i += SECTOR) checked += !unknown[(at + i) / SECTOR];
    }
    printf("{\"driver\":\"libblkio virtio-blk-vhost-user\",\"verified\":true,\"ops\":%llu,"
           "\"sectorsChecked\":%llu", (unsigned long long)issued, (unsigned long long)checked);
    for (int i = 0; i < KINDS; i++) {
        printf(",\"%s\":%llu", kind_names[i], (unsigned long long)per_kind[i]);
    }
    printf("}\n");
    return 0;
}

static const char *value(const char *argument, const char *name)
{
    size_t n = strlen(name);
    return strncmp(argument, name, n) == 0 ? argument + n : NULL;
}

int main(int argc, char **argv)
{
    int depth = 0;
    uint64_t block = 4096, bytes = 64ULL << 20, ops = 20000, seed = 1;
    double seconds = 2;
    bool event = false, wrong = argc < 3;
    for (int i = 3; i < argc; i++) {
        const char *v;
        if ((v = value(argv[i], "--iodepth="))) depth = atoi(v);
        else if ((v = value(argv[i], "--bs="))) block = strtoull(v, NULL, 10);
        else if ((v = value(argv[i], "--runtime="))) seconds = atof(v);
        else if ((v = value(argv[i], "--mode="))) event = strcmp(v, "event") == 0;
        else if ((v = value(argv[i], "--bytes="))) bytes = strtoull(v, NULL, 10);
        else if ((v = value(argv[i], "--ops="))) ops = strtoull(v, NULL, 10);
        else if ((v = value(argv[i], "--seed="))) seed = strtoull(v, NULL, 10);
        else wrong = true;
    }
    random_state = seed * 0x9e3779b97f4a7c15ULL | 1;
    if (!wrong && block >= SECTOR && depth >= 0 && depth <= MAX_DEPTH) {
        if (strcmp(argv[1], "bench") == 0) {
            return bench(argv[2], depth ? depth : 32, block, seconds, event);
        }
        if (strcmp(argv[1], "verify") == 0) {
            return verify(argv[2], depth ? depth : 16, bytes, ops);
        }
    }
    fprintf(stderr,
            "usage: blkio_bench bench  SOCKET [--iodepth=32] [--bs=4096] [--runtime=2]"
            " [--mode=poll|event]\n"
            "       blkio_bench verify SOCKET [--iodepth=16] [--bytes=67108864] [--ops=20000]"
            " [--seed=1]\n");
    return 2;
}
