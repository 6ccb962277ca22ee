// For tests/bench: what a frame costs from a tap's descriptor up to the bridge, in ns of the writer's CPU time. The kernel
// has done all its work when the write returns: a tap has no queue towards the host (tun_get_user).
//
//   frames ROUNDS BATCH NETNS...    opens vnet0 in each of the network namespaces and says "ready"; then, for each line of
//                                   stdin, a frame in hex, writes ROUNDS times BATCH of it into each, in turn, and
//                                   prints the medians, one for each namespace

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MOST 16

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int open_tap(const char *namespace) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int place = open(path, O_RDONLY | O_CLOEXEC);
    if (place < 0 || setns(place, CLONE_NEWNET) < 0)
        fail(path);
    close(place);
    struct ifreq request = {.ifr_name = "vnet0", .ifr_flags = IFF_TAP | IFF_NO_PI};
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
        fail("vnet0");
    return tap;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    int ways = argc - 3, taps[MOST];
    if (ways < 1 || ways > MOST)
        return 2;
    int rounds = atoi(argv[1]), batch = atoi(argv[2]);
    double *taken[MOST];
    for (int way = 0; way < ways; way++) {
        taps[way] = open_tap(argv[3 + way]);
        taken[way] = calloc(rounds, sizeof(double));
    }
    printf("ready\n");
    fflush(stdout);
    static char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        unsigned char frame[sizeof line / 2];
        int length = strcspn(line, "\n") / 2;
        for (int i = 0; i < length; i++)
            sscanf(line + 2 * i, "%2hhx", frame + i);
        for (int round = -1; round < rounds; round++) {
            for (int i = 0; i < ways; i++) {
                // Each round begins with another one; the round before the first only warms the caches.
                int way = (i + round + 1) % ways;
                double start = now();
                for (int n = 0; n < batch; n++)
                    if (write(taps[way], frame, length) != length)
                        fail("write");
                if (round >= 0)
                    taken[way][round] = (now() - start) / batch;
            }
        }
        for (int way = 0; way < ways; way++) {
            qsort(taken[way], rounds, sizeof(double), ascending);
            printf("%.1f%c", taken[way][rounds / 2], way + 1 < ways ? ' ' : '\n');
        }
        fflush(stdout);
    }
    return 0;
}
