/*
 * Both ends of a virtqueue as C does them well: what the platform's own ends are measured against.
 *
 * The algorithms are the ones that the Java ends use (the peer's index is cached, free descriptors
 * are a stack, a descriptor's second word is one store, a packed batch becomes visible by its first
 * descriptor), and the checks as well: used ids against size and what is outstanding, used lengths
 * against what the buffer has, available ids against size, lengths above 0, addresses against a
 * region. Each function that is exported keeps an end's state in registers for a whole round.
 *
 * Exported: twin_driver, twin_device, twin_drive, twin_serve, twin_solo, twin_ping,
 * twin_involuntary.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define ALWAYS static inline __attribute__((always_inline))
#define LINE 128
#define NONE INT64_MIN
#define MAX_BATCH 256

/* How a ring is driven. */
enum { PACKED = 1, EVENT = 2, BURST = 4, IN_ORDER = 8, HOWS = 16 };

/* Flags of descriptors, rings and event suppression (virtio 2.7 and 2.8). */
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };
enum { FLAGS = 0, IDX = 1, RING = 2 };
enum { NO_INTERRUPT = 1, NO_NOTIFY = 1 };
enum { ENABLE = 0, DISABLE = 1, DESC = 2 };

#ifdef __x86_64__
#define pause() __builtin_ia32_pause()
#define fence() asm volatile("lock; addl $0,-132(%%rsp)" ::: "memory", "cc")
#else
#define pause() asm volatile("yield")
#define fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif
#define unlikely(x) __builtin_expect(x, false)
#define load(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

struct descriptor {
    uint64_t address;
    uint64_t word;
};

/* What the device holds. */
struct buffer {
    uint64_t state; /* HELD and the bytes that it may write; 0 when it is not outstanding */
    int64_t token;
};

#define HELD (1ull << 63)

struct driver {
    struct descriptor *descriptors;
    uint16_t *available; /* packed: driver event suppression */
    uint16_t *used_ring; /* packed: device event suppression */
    struct buffer *buffers; /* by id */
    uint32_t *free_ids;
    uint32_t free, size;
    /* Counts of descriptors; the split ring has their low 16 bits. */
    uint64_t added, published, used, used_seen;
    /* In order: id and length of the last buffer of a batch that is being got. */
    uint32_t batch_id, batch_length;
    /* Packed. */
    uint32_t slot, used_slot, flags, used_flags;
    /* The word of the first descriptor since the last kick, which comes last. */
    uint64_t *held_at, held_word;
    bool broken;
} __attribute__((aligned(LINE)));

struct device {
    struct descriptor *descriptors;
    uint16_t *available; /* packed: driver event suppression */
    uint16_t *used_ring; /* packed: device event suppression */
    uint64_t region, region_end;
    uint32_t size;
    uint64_t next, seen, used, notified;
    uint32_t slot, used_slot, flags, used_flags;
    bool broken;
} __attribute__((aligned(LINE)));

struct chain {
    uint64_t address, length, writable;
    uint32_t id;
};

void *twin_driver(int how, uint32_t size, void *descriptors, void *driver_area, void *device_area)
{
    struct driver *d = aligned_alloc(LINE, sizeof *d);
    memset(d, 0, sizeof *d);
    d->descriptors = descriptors;
    d->available = driver_area;
    d->used_ring = device_area;
    d->size = d->free = size;
    d->buffers = aligned_alloc(LINE, LINE + size * sizeof *d->buffers);
    d->free_ids = aligned_alloc(LINE, LINE + size * sizeof *d->free_ids);
    for (uint32_t i = 0; i < size; i++) {
        d->buffers[i].state = 0;
        d->free_ids[i] = size - 1 - i;
    }
    d->flags = AVAIL;
    d->used_flags = AVAIL | USED;
    d->batch_id = size;
    if (how & PACKED)
        *(uint32_t *)driver_area =
            how & EVENT ? (1u << 15) | (uint32_t)DESC << 16 : (uint32_t)DISABLE << 16;
    else if (!(how & EVENT))
        d->available[FLAGS] = NO_INTERRUPT;
    return d;
}

void *twin_device(int how, uint32_t size, void *descriptors, void *driver_area, void *device_area,
                  uint64_t region, uint64_t region_end)
{
    struct device *d = aligned_alloc(LINE, sizeof *d);
    memset(d, 0, sizeof *d);
    d->descriptors = descriptors;
    d->available = driver_area;
    d->used_ring = device_area;
    d->region = region;
    d->region_end = region_end;
    d->size = size;
    d->flags = AVAIL;
    d->used_flags = AVAIL | USED;
    if ((how & PACKED) && (how & EVENT))
        *(uint32_t *)device_area = (1u << 15) | (uint32_t)DESC << 16;
    return d;
}

ALWAYS bool need_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* Whether now was gone to from old past the event of a packed ring; now is at slot. */
ALWAYS bool packed_need_event(uint32_t event, uint64_t now, uint64_t old, uint32_t slot,
                              uint32_t wrap, uint32_t size)
{
    uint32_t flags = event >> 16 & 3;
    if (flags != DESC) return flags != DISABLE;
    uint64_t at = now - slot + (event & 0x7FFF);
    if ((event >> 15 & 1) != wrap) at -= size;
    return old <= at && at < now;
}

/* ---- driver ---- */

ALWAYS uint32_t take_id(struct driver *d, const int how)
{
    d->free--;
    return how & IN_ORDER ? d->added & (d->size - 1) : d->free_ids[d->free];
}

ALWAYS void give_id(struct driver *d, const int how, uint32_t id)
{
    if (!(how & IN_ORDER)) d->free_ids[d->free] = id;
    d->free++;
}

/* Writes the next descriptor; the word of a batch's first one is left to the kick. */
ALWAYS void write_packed(struct driver *d, uint64_t address, uint32_t length, uint32_t id)
{
    struct descriptor *at = &d->descriptors[d->slot];
    uint64_t word = length | (uint64_t)id << 32 | (uint64_t)d->flags << 48;
    at->address = address;
    if (!d->held_at) {
        d->held_at = &at->word;
        d->held_word = word;
    } else {
        at->word = word;
    }
    if (++d->slot == d->size) {
        d->slot = 0;
        d->flags ^= AVAIL | USED;
    }
}

ALWAYS bool add(struct driver *d, const int how, uint64_t address, uint32_t length, int64_t token)
{
    if (!d->free || unlikely(d->broken)) return false;
    uint32_t id = take_id(d, how);
    struct buffer *buffer = &d->buffers[id];
    buffer->state = HELD;
    buffer->token = token;
    if (how & PACKED) {
        write_packed(d, address, length, id);
    } else {
        struct descriptor *at = &d->descriptors[id];
        at->address = address;
        at->word = length;
        d->available[RING + (d->added & (d->size - 1))] = id;
    }
    d->added++;
    return true;
}

/* The id that is taken behind so many others. */
ALWAYS uint32_t free_id(struct driver *d, const int how, uint32_t behind)
{
    return how & IN_ORDER ? (d->added + behind) & (d->size - 1) : d->free_ids[d->free - 1 - behind];
}

/*
 * Adds many buffers; how many there was room for. What goes to one line is written together: stores
 * that the other end's lines keep waiting hold up all that come behind them.
 */
ALWAYS long add_burst(struct driver *d, const int how, uint64_t address, uint32_t length,
                      int64_t token, long count)
{
    uint32_t n = count < d->free ? count : d->free;
    if (unlikely(d->broken)) return 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = free_id(d, how, i);
        if (how & PACKED) {
            write_packed(d, address, length, id);
        } else {
            d->descriptors[id].address = address;
            d->descriptors[id].word = length;
        }
    }
    for (uint32_t i = 0; !(how & PACKED) && i < n; i++)
        d->available[RING + ((d->added + i) & (d->size - 1))] = free_id(d, how, i);
    for (uint32_t i = 0; i < n; i++) {
        struct buffer *buffer = &d->buffers[free_id(d, how, i)];
        buffer->state = HELD;
        buffer->token = token + i;
    }
    d->free -= n;
    d->added += n;
    return n;
}

ALWAYS bool kick_prepare(struct driver *d, const int how)
{
    uint64_t old = d->published;
    uint64_t now = d->added;
    if (now == old) return false;
    d->published = now;
    if (how & PACKED) {
        release(d->held_at, d->held_word);
        d->held_at = NULL;
        fence();
        uint32_t event = load((uint32_t *)d->used_ring);
        return packed_need_event(event, now, old, d->slot, d->flags == AVAIL, d->size);
    }
    release(&d->available[IDX], (uint16_t)now);
    fence();
    if (how & EVENT) return need_event(load(&d->used_ring[RING + 4 * d->size]), now, old);
    return !(load(&d->used_ring[FLAGS]) & NO_NOTIFY);
}

/* Asks for an interrupt at the next used buffer. */
ALWAYS void ask_for_interrupt(struct driver *d, const int how)
{
    if (how & PACKED) {
        uint32_t wrap = d->used_flags ? 1u << 15 : 0;
        store((uint32_t *)d->available, d->used_slot | wrap | (uint32_t)DESC << 16);
    } else {
        store(&d->available[RING + d->size], (uint16_t)d->used);
    }
    fence();
}

ALWAYS int64_t broken(struct driver *d)
{
    d->broken = true;
    return NONE;
}

ALWAYS int64_t take_token(struct driver *d, const int how, uint32_t id, uint32_t length)
{
    if (unlikely(id >= d->size)) return broken(d);
    struct buffer *buffer = &d->buffers[id];
    uint64_t state = buffer->state;
    if (unlikely(!(state & HELD) || length > (uint32_t)state)) return broken(d);
    buffer->state = 0;
    give_id(d, how, id);
    return buffer->token;
}

ALWAYS uint64_t used_word(struct driver *d)
{
    return acquire(&d->descriptors[d->used_slot].word);
}

ALWAYS bool is_used(struct driver *d, uint64_t word)
{
    return (word >> 48 & (AVAIL | USED)) == d->used_flags;
}

ALWAYS bool refresh_used(struct driver *d)
{
    uint16_t ready = acquire(&d->used_ring[IDX]) - (uint16_t)d->used;
    if (unlikely(ready > d->published - d->used)) return broken(d) != NONE;
    d->used_seen = d->used + ready;
    return ready;
}

/* In order, one element stands for a batch that ends with its id. */
ALWAYS int64_t get_of_batch(struct driver *d, const int how, uint32_t *length)
{
    uint32_t id = d->used & (d->size - 1);
    if (id == d->batch_id) {
        *length = d->batch_length;
        d->batch_id = d->size;
    } else {
        *length = 0;
    }
    d->used++;
    if ((how & PACKED) && ++d->used_slot == d->size) {
        d->used_slot = 0;
        d->used_flags ^= AVAIL | USED;
    }
    return take_token(d, how, id, *length);
}

ALWAYS int64_t get(struct driver *d, const int how, uint32_t *length)
{
    if ((how & IN_ORDER) && d->batch_id != d->size) return get_of_batch(d, how, length);
    uint32_t id;
    if (how & PACKED) {
        uint64_t word = used_word(d);
        if (!is_used(d, word)) return NONE;
        id = word >> 32 & 0xFFFF;
        *length = word >> 48 & WRITE ? (uint32_t)word : 0;
        if (!(how & IN_ORDER)) {
            d->used++;
            if (++d->used_slot == d->size) {
                d->used_slot = 0;
                d->used_flags ^= AVAIL | USED;
            }
        }
    } else {
        if (d->used == d->used_seen && !refresh_used(d)) return NONE;
        uint64_t *ring = (uint64_t *)(d->used_ring + RING);
        uint64_t element = ring[d->used & (d->size - 1)];
        id = element;
        *length = element >> 32;
        if (!(how & IN_ORDER)) d->used++;
    }
    if (how & IN_ORDER) {
        if (unlikely(id >= d->size)) return broken(d);
        d->batch_id = id;
        d->batch_length = *length;
        return get_of_batch(d, how, length);
    }
    return take_token(d, how, id, *length);
}

ALWAYS long get_burst(struct driver *d, const int how, int64_t *tokens, uint32_t *lengths, long max)
{
    long count = 0;
    while (count < max && (tokens[count] = get(d, how, &lengths[count])) != NONE) count++;
    return count;
}

ALWAYS bool is_idle(struct driver *d, const int how)
{
    if (how & PACKED) return !is_used(d, used_word(d));
    return acquire(&d->used_ring[IDX]) == (uint16_t)d->used;
}

/* As Linux's ring benchmark: one is got for each that is added, and asked when nothing is left. */
ALWAYS long drive_event(struct driver *d, const int how, long n, uint64_t address)
{
    uint32_t length;
    long started = 0, completed = 0, kicks = 0;
    while (!unlikely(d->broken)) {
        bool busy;
        do {
            busy = started < n && add(d, how, address, 64, started);
            if (busy) {
                started++;
                kicks += kick_prepare(d, how);
            }
            if (get(d, how, &length) != NONE) {
                if (++completed == n) return kicks;
                busy = true;
            }
        } while (busy);
        ask_for_interrupt(d, how);
        while (is_idle(d, how)) pause();
    }
    return kicks;
}

ALWAYS long drive(struct driver *d, const int how, long n, long batch, uint64_t address)
{
    int64_t tokens[MAX_BATCH];
    uint32_t lengths[MAX_BATCH];
    long started = 0, completed = 0, kicks = 0;
    if (how & EVENT) return drive_event(d, how, n, address);
    while (completed < n && !unlikely(d->broken)) {
        long room = n - started < batch ? n - started : batch;
        long added = 0;
        if (how & BURST) {
            added = add_burst(d, how, address, 64, started, room);
        } else {
            while (added < room && add(d, how, address, 64, started + added)) added++;
        }
        if (added) kicks += kick_prepare(d, how);
        started += added;
        long got = 0;
        if (how & BURST) {
            for (long k; (k = get_burst(d, how, tokens, lengths, batch)); got += k) continue;
        } else {
            while (get(d, how, lengths) != NONE) got++;
        }
        completed += got;
        if (!added && !got) pause();
    }
    return kicks;
}

/* ---- device ---- */

ALWAYS bool refresh_available(struct device *d)
{
    uint16_t ready = acquire(&d->available[IDX]) - (uint16_t)d->next;
    if (unlikely(ready > d->size)) return !(d->broken = true);
    d->seen = d->next + ready;
    return ready;
}

ALWAYS bool next(struct device *d, const int how, struct chain *c)
{
    uint64_t word;
    struct descriptor *at;
    if (how & PACKED) {
        at = &d->descriptors[d->slot];
        word = acquire(&at->word);
        if ((word >> 48 & (AVAIL | USED)) != d->flags) return false;
        c->id = word >> 32 & 0xFFFF;
        if (++d->slot == d->size) {
            d->slot = 0;
            d->flags ^= AVAIL | USED;
        }
    } else {
        if (d->next == d->seen && !refresh_available(d)) return false;
        c->id = d->available[RING + (d->next & (d->size - 1))];
        if (unlikely(c->id >= d->size)) return !(d->broken = true);
        at = &d->descriptors[c->id];
        word = at->word;
    }
    d->next++;
    c->address = at->address;
    c->length = (uint32_t)word;
    uint32_t flags = how & PACKED ? word >> 48 : word >> 32;
    if (unlikely((flags & (NEXT | INDIRECT)) || c->address + c->length <= c->address ||
                 c->address < d->region || c->length > d->region_end - c->address))
        return !(d->broken = true);
    c->writable = flags & WRITE ? c->length : 0;
    return true;
}

/* Writes the next used element; packed: returns its word, which the caller writes. */
ALWAYS uint64_t put_used(struct device *d, const int how, struct chain *c, uint32_t length)
{
    if (unlikely(length > c->writable)) d->broken = true;
    uint64_t word;
    if (how & PACKED) {
        uint64_t flags = d->used_flags | (length ? WRITE : 0);
        word = length | (uint64_t)c->id << 32 | flags << 48;
        if (++d->used_slot == d->size) {
            d->used_slot = 0;
            d->used_flags ^= AVAIL | USED;
        }
    } else {
        uint64_t *ring = (uint64_t *)(d->used_ring + RING);
        word = c->id | (uint64_t)length << 32;
        ring[d->used & (d->size - 1)] = word;
    }
    d->used++;
    return word;
}

ALWAYS void publish_used(struct device *d)
{
    release(&d->used_ring[IDX], (uint16_t)d->used);
}

/*
 * All that is available, at most max, as bursts are: published once. In order as well, each has an
 * element of its own, as ours have: there are drivers that look at every one.
 */
ALWAYS long serve_burst(struct device *d, const int how, long max)
{
    struct chain c;
    uint64_t *first = &d->descriptors[d->used_slot].word, first_word = 0;
    long count = 0;
    for (; count < max && next(d, how, &c); count++) {
        uint64_t *at = &d->descriptors[d->used_slot].word;
        uint64_t word = put_used(d, how, &c, 0);
        if (!count) {
            first_word = word;
        } else if (how & PACKED) {
            *at = word;
        }
    }
    if (!count) return 0;
    if (how & PACKED) {
        release(first, first_word);
    } else {
        publish_used(d);
    }
    return count;
}

ALWAYS long serve_one(struct device *d, const int how)
{
    struct chain c;
    if (!next(d, how, &c)) return 0;
    uint64_t *at = &d->descriptors[d->used_slot].word;
    uint64_t word = put_used(d, how, &c, 0);
    if (how & PACKED) {
        release(at, word);
    } else {
        publish_used(d);
    }
    return 1;
}

ALWAYS bool notify_driver(struct device *d, const int how)
{
    uint64_t old = d->notified;
    uint64_t now = d->used;
    if (now == old) return false;
    d->notified = now;
    fence();
    if (how & PACKED) {
        uint32_t event = load((uint32_t *)d->available);
        return packed_need_event(event, now, old, d->used_slot, d->used_flags != 0, d->size);
    }
    if (how & EVENT) return need_event(load(&d->available[RING + d->size]), now, old);
    return !(load(&d->available[FLAGS]) & NO_INTERRUPT);
}

/* Asks to be notified of what comes next. */
ALWAYS void ask_for_notification(struct device *d, const int how)
{
    if (how & PACKED) {
        uint32_t wrap = d->flags == AVAIL ? 1u << 15 : 0;
        store((uint32_t *)d->used_ring, d->slot | wrap | (uint32_t)DESC << 16);
    } else {
        store(&d->used_ring[RING + 4 * d->size], (uint16_t)d->next);
    }
    fence();
}

ALWAYS long serve_event(struct device *d, const int how, long *interrupts)
{
    long count = 0;
    while (serve_one(d, how)) {
        count++;
        *interrupts += notify_driver(d, how);
    }
    if (count) {
        /* Asked until nothing came meanwhile. */
        for (;;) {
            ask_for_notification(d, how);
            if (!serve_one(d, how)) break;
            do {
                count++;
                *interrupts += notify_driver(d, how);
            } while (serve_one(d, how));
        }
    }
    return count;
}

ALWAYS long serve(struct device *d, const int how, long n, long batch)
{
    long done = 0, interrupts = 0;
    while (done < n && !unlikely(d->broken)) {
        long count = 0;
        if (how & EVENT) {
            count = serve_event(d, how, &interrupts);
        } else if (how & BURST) {
            for (long k; (k = serve_burst(d, how, batch)); count += k) continue;
        } else {
            while (serve_one(d, how)) count++;
        }
        done += count;
        if (!count) {
            pause();
        } else if (!(how & EVENT)) {
            interrupts += notify_driver(d, how);
        }
    }
    return interrupts;
}

/* ---- one thread with both ends ---- */

ALWAYS long solo(struct driver *a, struct device *b, const int how, long n, long batch,
                 uint64_t address)
{
    int64_t tokens[MAX_BATCH];
    uint32_t lengths[MAX_BATCH];
    long done = 0, wanted = 0;
    while (done < n) {
        if (how & BURST) add_burst(a, how, address, 64, 0, batch);
        for (long i = 0; !(how & BURST) && i < batch; i++) {
            add(a, how, address, 64, i);
            if (how & EVENT) wanted += kick_prepare(a, how);
        }
        if (!(how & EVENT)) wanted += kick_prepare(a, how);
        if (how & EVENT) {
            serve_event(b, how, &wanted);
        } else {
            if (how & BURST) {
                while (serve_burst(b, how, batch)) continue;
            } else {
                while (serve_one(b, how)) continue;
            }
            wanted += notify_driver(b, how);
        }
        long got = 0;
        if (how & BURST) {
            got = get_burst(a, how, tokens, lengths, batch);
        } else {
            while (got < batch && get(a, how, lengths) != NONE) got++;
        }
        if (got != batch) return -1;
        if (how & EVENT) ask_for_interrupt(a, how);
        done += got;
    }
    return wanted;
}

/* ---- exported ---- */

/* One copy of the code for each way, with the state in locals. */
#define WAY(how)                                                                                   \
    case how: {                                                                                    \
        RUN(how)                                                                                   \
    } break;
#define EACH_WAY                                                                                   \
    WAY(0) WAY(PACKED) WAY(EVENT) WAY(PACKED | EVENT) WAY(BURST) WAY(PACKED | BURST)               \
    WAY(IN_ORDER | BURST) WAY(PACKED | IN_ORDER | BURST)

/* Each returns how many notifications were wanted, or -1 when a peer broke a promise. */

__attribute__((noinline)) long twin_drive(struct driver *state, int how, long n, long batch,
                                          uint64_t address)
{
    struct driver d = *state;
    long result = -1;
    switch (how) {
#define RUN(how) result = drive(&d, how, n, batch, address);
        EACH_WAY
#undef RUN
    }
    *state = d;
    return d.broken ? -1 : result;
}

__attribute__((noinline)) long twin_serve(struct device *state, int how, long n, long batch)
{
    struct device d = *state;
    long result = -1;
    switch (how) {
#define RUN(how) result = serve(&d, how, n, batch);
        EACH_WAY
#undef RUN
    }
    *state = d;
    return d.broken ? -1 : result;
}

__attribute__((noinline)) long twin_solo(struct driver *driver, struct device *device, int how,
                                         long n, long batch, uint64_t address)
{
    struct driver a = *driver;
    struct device b = *device;
    long result = -1;
    switch (how) {
#define RUN(how) result = solo(&a, &b, how, n, batch, address);
        EACH_WAY
#undef RUN
    }
    *driver = a;
    *device = b;
    return a.broken || b.broken ? -1 : result;
}

/* Passes a number to and fro; side is 0 or 1. */
long twin_ping(uint64_t *line, long rounds, int side)
{
    for (long i = 0; i < rounds; i++) {
        if (side == 0) release(line, 2 * i + 1);
        while (acquire(line) != (uint64_t)(2 * i + 1 + !side)) pause();
        if (side == 1) release(line, 2 * i + 2);
    }
    return rounds;
}

/* Times that the calling thread was taken off its processor. */
long twin_involuntary(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) ? -1 : usage.ru_nivcsw;
}
