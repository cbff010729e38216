/*
 * Linux's own ring benchmark (tools/virtio/ringtest), with the loops of its main.c cut into rounds:
 * to be compiled together with one of its rings. Notifications are counted, nobody sleeps.
 *
 * Exported: linux_start, linux_drive, linux_serve, linux_solo.
 */
#include <stddef.h>
#include "main.h"

#define EXPORTED __attribute__((visibility("default")))

int param;
bool do_exit;
bool do_sleep;
bool do_relax = true;
unsigned ring_size;

static long kicks, calls;

void kick(void) { kicks++; }
void call(void) { calls++; }

/* checked: whether each end looks after each buffer if the other wants to be notified. */
EXPORTED void linux_start(unsigned size, bool checked)
{
    ring_size = size;
    do_sleep = checked;
    alloc_ring();
}

EXPORTED __attribute__((flatten)) long linux_drive(long n)
{
    long started = 0, completed = 0;
    unsigned length;
    void *buffer;

    for (;;) {
        if (do_sleep) disable_call();
        int r;
        do {
            if (started < n && started - completed < ring_size) {
                r = add_inbuf(0, "Buffer\n", "Hello, world!");
                if (r == 0) {
                    started++;
                    if (do_sleep) kick_available();
                }
            } else {
                r = -1;
            }
            if (get_buf(&length, &buffer)) {
                if (++completed == n) return kicks;
                r = 0;
            }
        } while (r == 0);
        if (!do_sleep || (used_empty() && enable_call()))
            while (used_empty()) busy_wait();
    }
}

EXPORTED __attribute__((flatten)) long linux_serve(long n)
{
    long completed = 0;
    unsigned length;
    void *buffer;

    for (;;) {
        if (!do_sleep || (avail_empty() && enable_kick()))
            while (avail_empty()) busy_wait();
        if (do_sleep) disable_kick();
        while (use_buf(&length, &buffer)) {
            if (do_sleep) call_used();
            if (++completed == n) return calls;
        }
    }
}

EXPORTED __attribute__((flatten)) long linux_solo(long n, long batch)
{
    unsigned length;
    void *buffer;

    for (long done = 0; done < n; done += batch) {
        for (long i = 0; i < batch; i++) {
            if (add_inbuf(0, "Buffer\n", "Hello, world!")) return -1;
            if (do_sleep) kick_available();
        }
        if (do_sleep) disable_kick();
        while (use_buf(&length, &buffer))
            if (do_sleep) call_used();
        if (do_sleep) enable_kick();
        for (long i = 0; i < batch; i++)
            if (!get_buf(&length, &buffer)) return -1;
        if (do_sleep) enable_call();
    }
    return kicks;
}
