// The floor for tests/bench: the requests that change the kernel in one `up` (clsact, guard, attach, isolate, add the
// route) or one `down` (delete the route, detach, delete the clsact), each sent and acknowledged, in a static program
// with no runtime, no look-ups, no checks, no log.
//
//   floor up TAP-INDEX BRIDGE-INDEX ADDRESS-IN-HEX PROGRAM-IN-HEX
//   floor down TAP-INDEX BRIDGE-INDEX ADDRESS-IN-HEX guard
//   floor ports      reads all ports and all routes of protocol 132 and looks at none: the floor of a pass

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <unistd.h>

static int sock;

struct request {
    struct nlmsghdr header;
    char body[1024];
};

static struct rtattr *put(struct request *r, int type, const void *value, int length) {
    struct rtattr *attribute = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(length);
    if (length)
        memcpy(RTA_DATA(attribute), value, length);
    r->header.nlmsg_len = NLMSG_ALIGN(r->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void end(struct request *r, struct rtattr *nest) {
    nest->rta_len = (char *)r + r->header.nlmsg_len - (char *)nest;
}

static void talk(struct request *r, const char *what) {
    char answer[4096];
    r->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (send(sock, r, r->header.nlmsg_len, 0) < 0 || recv(sock, answer, sizeof answer, 0) < 0) {
        perror(what);
        exit(1);
    }
    struct nlmsghdr *header = (struct nlmsghdr *)answer;
    int error = ((struct nlmsgerr *)NLMSG_DATA(header))->error;
    if (header->nlmsg_type != NLMSG_ERROR || error) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(-error));
        exit(1);
    }
}

static struct request link_request(int type, uint32_t index) {
    struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)), .nlmsg_type = type}};
    ((struct ifinfomsg *)NLMSG_DATA(&r.header))->ifi_index = index;
    return r;
}

static struct request route_request(int type, uint32_t bridge, uint32_t address) {
    struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)), .nlmsg_type = type}};
    uint32_t metric = 4026531940u;
    *(struct rtmsg *)NLMSG_DATA(&r.header) = (struct rtmsg){.rtm_family = AF_INET,
                                                            .rtm_dst_len = 32,
                                                            .rtm_table = RT_TABLE_MAIN,
                                                            .rtm_protocol = 132,
                                                            .rtm_scope = RT_SCOPE_LINK,
                                                            .rtm_type = RTN_UNICAST};
    put(&r, RTA_DST, &address, 4);
    put(&r, RTA_OIF, &bridge, 4);
    put(&r, RTA_PRIORITY, &metric, 4);
    return r;
}

static struct request clsact_request(int type, uint32_t tap) {
    struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct tcmsg)), .nlmsg_type = type}};
    *(struct tcmsg *)NLMSG_DATA(&r.header) =
        (struct tcmsg){.tcm_ifindex = tap, .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0), .tcm_parent = TC_H_CLSACT};
    put(&r, TCA_KIND, "clsact", 7);
    return r;
}

static struct request guard_request(uint32_t tap, const char *hex) {
    struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct tcmsg)), .nlmsg_type = RTM_NEWTFILTER}};
    *(struct tcmsg *)NLMSG_DATA(&r.header) = (struct tcmsg){.tcm_ifindex = tap,
                                                            .tcm_handle = 132,
                                                            .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
                                                            .tcm_info = TC_H_MAKE(1 << 16, htons(0x0003))};
    unsigned char program[800];
    uint16_t length = strlen(hex) / 16;
    uint32_t direct_action = TCA_BPF_FLAG_ACT_DIRECT;
    for (int i = 0; i < 8 * length && i < (int)sizeof program; i++)
        sscanf(hex + 2 * i, "%2hhx", program + i);
    put(&r, TCA_KIND, "bpf", 4);
    struct rtattr *options = put(&r, TCA_OPTIONS, NULL, 0);
    put(&r, TCA_BPF_OPS_LEN, &length, 2);
    put(&r, TCA_BPF_OPS, program, 8 * length);
    put(&r, TCA_BPF_FLAGS, &direct_action, 4);
    end(&r, options);
    return r;
}

static void dump(struct request *r, const char *what) {
    static char answer[65536];
    r->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    ssize_t length = send(sock, r, r->header.nlmsg_len, 0);
    struct nlmsghdr *header;
    do {
        if (length < 0 || (length = recv(sock, answer, sizeof answer, 0)) < 0) {
            perror(what);
            exit(1);
        }
        header = (struct nlmsghdr *)answer;
    } while (header->nlmsg_type != NLMSG_DONE);
}

static int read_all(void) {
    int on = 1;
    setsockopt(sock, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
    struct request routes = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)), .nlmsg_type = RTM_GETROUTE}};
    *(struct rtmsg *)NLMSG_DATA(&routes.header) =
        (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = 132};
    dump(&routes, "read the routes");
    struct request ports = link_request(RTM_GETLINK, 0);
    ((struct ifinfomsg *)NLMSG_DATA(&ports.header))->ifi_family = AF_BRIDGE;
    dump(&ports, "read the ports");
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "ports")) {
        sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        return read_all();
    }
    if (argc != 6)
        return 2;
    int up = !strcmp(argv[1], "up");
    uint32_t tap = atoi(argv[2]), bridge = atoi(argv[3]), address = htonl(strtoul(argv[4], NULL, 16)), zero = 0;
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (up) {
        struct request clsact = clsact_request(RTM_NEWQDISC, tap);
        clsact.header.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
        talk(&clsact, "add the clsact");

        struct request guard = guard_request(tap, argv[5]);
        guard.header.nlmsg_flags = NLM_F_CREATE;
        talk(&guard, "add the guard");

        struct request attach = link_request(RTM_SETLINK, tap);
        struct ifinfomsg *info = NLMSG_DATA(&attach.header);
        unsigned char mac[6] = {0xfe, 0x42};
        uint32_t mtu = 1500;
        memcpy(mac + 2, &address, 4);
        info->ifi_flags = info->ifi_change = IFF_UP;
        put(&attach, IFLA_ADDRESS, mac, 6);
        put(&attach, IFLA_MTU, &mtu, 4);
        put(&attach, IFLA_MASTER, &bridge, 4);
        talk(&attach, "attach");

        struct request isolate = link_request(RTM_NEWLINK, tap);
        unsigned char on = 1;
        struct rtattr *outer = put(&isolate, IFLA_LINKINFO, NULL, 0);
        put(&isolate, IFLA_INFO_SLAVE_KIND, "bridge", 7);
        struct rtattr *inner = put(&isolate, IFLA_INFO_SLAVE_DATA, NULL, 0);
        put(&isolate, IFLA_BRPORT_ISOLATED, &on, 1);
        end(&isolate, inner);
        end(&isolate, outer);
        talk(&isolate, "isolate");

        struct request add = route_request(RTM_NEWROUTE, bridge, address);
        add.header.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
        talk(&add, "add the route");
    } else {
        struct request del = route_request(RTM_DELROUTE, bridge, address);
        talk(&del, "delete the route");

        struct request detach = link_request(RTM_SETLINK, tap);
        ((struct ifinfomsg *)NLMSG_DATA(&detach.header))->ifi_change = IFF_UP;
        put(&detach, IFLA_MASTER, &zero, 4);
        talk(&detach, "detach");

        struct request clsact = clsact_request(RTM_DELQDISC, tap);
        talk(&clsact, "delete the clsact");
    }
    return 0;
}
