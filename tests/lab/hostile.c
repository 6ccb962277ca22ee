// A hostile guest: sends frames of any content from user space, as root in a guest can. Part of the guest image.
//
// It reads /frames: before each frame its length (4 octets, the lowest first), which counts the struct virtio_net_hdr of
// 10 octets at the frame's head. Then it obeys lines at the console, and answers each with "sent N":
//   round   sends each frame once from each CPU; virtio-net has a queue for each
//   flood   sends rounds until the next line comes

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char frames[4 << 20];
static long size;

static void die(const char *what)
{
    printf("hostile: %s: %s\n", what, strerror(errno));
    // The first process must not end: the kernel would panic, which tests take for QEMU's fault.
    for (;;)
        pause();
}

static long send_all(int to)
{
    long sent = 0, length;
    for (long at = 0; at < size; at += 4 + length) {
        uint32_t stored;
        memcpy(&stored, frames + at, sizeof stored);
        length = stored;
        // The device's queue is full: the guest's kernel drops.
        while (send(to, frames + at + 4, length, 0) != length)
            if (errno != ENOBUFS)
                die("send");
        sent++;
    }
    return sent;
}

static long send_round(int to)
{
    long sent = 0;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) < 0)
            die("sched_setaffinity");
        sent += send_all(to);
    }
    return sent;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    FILE *file = fopen("/frames", "r");
    if (!file)
        die("/frames");
    size = fread(frames, 1, sizeof frames, file);

    int to = socket(AF_PACKET, SOCK_RAW, 0), on = 1;
    struct sockaddr_ll eth0 = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex("eth0") };
    if (to < 0 || bind(to, (struct sockaddr *)&eth0, sizeof eth0) < 0)
        die("packet socket");
    // A frame may be 60 KB that the host is to cut into segments.
    if (setsockopt(to, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0)
        die("PACKET_VNET_HDR");

    printf("hostile is ready\n");
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long sent = 0;
        struct pollfd input = { .fd = 0, .events = POLLIN };
        do
            sent += send_round(to);
        while (!strcmp(line, "flood\n") && poll(&input, 1, 0) == 0);
        if (!strcmp(line, "flood\n") && !fgets(line, sizeof line, stdin))
            break;
        printf("sent %ld\n", sent);
    }
    die("console");
}
