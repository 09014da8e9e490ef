/* address_connections(): the kernel's list of sockets, by sock_diag(7), as `ss` has it. */
#include "exporters/address.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <xxhash.h>

#define ADDRESSES_LOOKED_AT 16u

/* As IPv6 has them: ::ffff:… for those of IPv4, which a socket of either family can have. */
struct wanted {
    struct in6_addr all[ADDRESSES_LOOKED_AT];
    unsigned count;
};

static struct in6_addr mapped(const void *four) {
    struct in6_addr address = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(address.s6_addr + 12, four, 4);
    return address;
}

static void parse(const char *list, struct wanted *wanted) {
    wanted->count = 0;
    for (;;) {
        char one[INET6_ADDRSTRLEN];
        struct in_addr four;
        list += strspn(list, " ");
        size_t length = strcspn(list, " "), host = strcspn(list, "/@ ");
        if (length == 0 || wanted->count == ADDRESSES_LOOKED_AT)
            return;
        snprintf(one, sizeof one, "%.*s", (int)MIN(host, sizeof one - 1), list);
        list += length;
        struct in6_addr *next = &wanted->all[wanted->count];
        if (inet_pton(AF_INET, one, &four) == 1)
            *next = mapped(&four);
        else if (inet_pton(AF_INET6, one, next) != 1)
            continue;
        wanted->count++;
    }
}

/* The sum does not depend on the kernel's order. */
static void count_in(const struct inet_diag_msg *message, const struct wanted *wanted, uint64_t *digest) {
    struct {
        struct in6_addr here, there;
        uint16_t ports[2];
        uint16_t none[2];
    } pair = {.ports = {message->id.idiag_sport, message->id.idiag_dport}};
    if (message->idiag_family == AF_INET) {
        pair.here = mapped(message->id.idiag_src);
        pair.there = mapped(message->id.idiag_dst);
    } else {
        memcpy(&pair.here, message->id.idiag_src, sizeof pair.here);
        memcpy(&pair.there, message->id.idiag_dst, sizeof pair.there);
    }
    for (unsigned i = 0; i < wanted->count; i++)
        if (memcmp(&pair.here, &wanted->all[i], sizeof pair.here) == 0)
            *digest += XXH3_64bits(&pair, sizeof pair);
}

static int read_all(int fd, const struct wanted *wanted, uint64_t *digest) {
    _Alignas(struct nlmsghdr) char bytes[16384];
    for (;;) {
        ssize_t size = recv(fd, bytes, sizeof bytes, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            return size < 0 ? -errno : -EIO;
        size_t left = (size_t)size;
        for (const struct nlmsghdr *header = (const void *)bytes; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_type == NLMSG_DONE)
                return 0;
            if (header->nlmsg_type == NLMSG_ERROR)
                return -EOPNOTSUPP;
            if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY && header->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
                count_in(NLMSG_DATA(header), wanted, digest);
        }
    }
}

static int ask(int fd, uint8_t family, const struct wanted *wanted, uint64_t *digest) {
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } question = {.header = {.nlmsg_len = sizeof question, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                  .request = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1u << TCP_ESTABLISHED}};
    if (send(fd, &question, sizeof question, 0) < 0)
        return -errno;
    return read_all(fd, wanted, digest);
}

int address_connections(const char *addresses, uint64_t *digest) {
    struct wanted wanted;
    struct timeval patience = {.tv_usec = 200000};
    AUTO_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    parse(addresses, &wanted);
    *digest = 0;
    int rc = ask(fd, AF_INET, &wanted, digest);
    return rc ? rc : ask(fd, AF_INET6, &wanted, digest);
}
