// baton-announce: says on the network who has an address. Called by the exporter vip, as root; an address is IPv4 or
// IPv6.
//
//   baton-announce probe INTERFACE ADDRESS MILLISECONDS         does anybody else answer for it? 0: nobody, 1: prints
//                                                               whose MAC, 2: error
//   baton-announce await INTERFACE ADDRESS MILLISECONDS         the same without asking: does anybody claim it?
//   baton-announce claim INTERFACE ADDRESS COUNT MILLISECONDS   gratuitous ARP or unsolicited neighbour advertisements
//   baton-announce tickle <CONNECTIONS                          lines "SERVER PORT CLIENT PORT": what a client sends
//                                                               next is sent now
//
// Why a program of our own: arping waits whole seconds before it says that nobody answers, which would be part of every
// failover; Debian has nothing small that sends neighbour advertisements; and nothing that tickles. A tickle (as CTDB
// has it) is an ACK outside the client's window, from the server's address: the client answers with an ACK of its own,
// the new node's kernel does not know that connection and answers RST, and the client connects again at once. Otherwise
// a client whose request was acknowledged by the node that died has nothing to repeat, and waits for its own time
// limits: minutes.
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 2, PROBES = 3, MAC = 6, MAX_TICKLES = 10000 };

struct link_door {
    int fd;
    int family;
    int ifindex;
    unsigned char mac[MAC];
    unsigned char address[16]; // 4 or 16 bytes of it
};

static int complain(const char *what, const char *which) {
    fprintf(stderr, "%s %s: %s\n", what, which, strerror(errno));
    return FAILED;
}

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int door_open(struct link_door *door, const char *interface, const char *text) {
    struct ifreq request = {0};
    door->family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(door->family, text, door->address) != 1) {
        errno = EINVAL;
        return complain("no address:", text);
    }
    unsigned short protocol = htons(door->family == AF_INET ? ETH_P_ARP : ETH_P_IPV6);
    door->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, protocol);
    if (door->fd < 0)
        return complain("a packet socket", "could not be opened");
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    if (ioctl(door->fd, SIOCGIFINDEX, &request) < 0)
        return complain("interface", interface);
    door->ifindex = request.ifr_ifindex;
    if (ioctl(door->fd, SIOCGIFHWADDR, &request) < 0)
        return complain("interface", interface);
    memcpy(door->mac, request.ifr_hwaddr.sa_data, MAC);
    struct sockaddr_ll here = {.sll_family = AF_PACKET, .sll_protocol = protocol, .sll_ifindex = door->ifindex};
    return bind(door->fd, (struct sockaddr *)&here, sizeof(here)) < 0 ? complain("interface", interface) : 0;
}

static int door_send(const struct link_door *door, const unsigned char mac[MAC], const void *packet, size_t size) {
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(door->family == AF_INET ? ETH_P_ARP : ETH_P_IPV6),
                             .sll_ifindex = door->ifindex,
                             .sll_halen = MAC};
    memcpy(to.sll_addr, mac, MAC);
    return sendto(door->fd, packet, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? FAILED : 0;
}

// The sum of RFC 1071 over a pseudo header and what follows it.
static unsigned sum16(unsigned sum, const void *data, size_t size) {
    const unsigned char *at = data;
    for (size_t i = 0; i < size; i++)
        sum += i % 2 ? at[i] : (unsigned)at[i] << 8;
    return sum;
}
static unsigned short sum_end(unsigned sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((unsigned short)~sum);
}

static int send_arp(const struct link_door *door, unsigned short operation, bool probe) {
    static const unsigned char everybody[MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct ether_arp arp = {
        .ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER), .ar_pro = htons(ETH_P_IP), .ar_hln = MAC, .ar_pln = 4}};
    arp.ea_hdr.ar_op = htons(operation);
    memcpy(arp.arp_sha, door->mac, MAC);
    if (!probe) // a probe leaves it 0.0.0.0, so that nobody learns anything from it (RFC 5227)
        memcpy(arp.arp_spa, door->address, 4);
    if (operation == ARPOP_REPLY)
        memcpy(arp.arp_tha, everybody, MAC);
    memcpy(arp.arp_tpa, door->address, 4);
    return door_send(door, everybody, &arp, sizeof(arp));
}

// A neighbour solicitation as duplicate address detection sends it (from ::), or an unsolicited advertisement (RFC
// 4861).
static int send_nd(const struct link_door *door, bool probe) {
    struct {
        struct ip6_hdr ip;
        union {
            struct nd_neighbor_solicit ask;
            struct nd_neighbor_advert say;
        } nd;
        unsigned char option[8]; // the advertisement's: target link-layer address
    } packet = {0};
    unsigned char to_mac[MAC] = {0x33, 0x33, 0, 0, 0, 1};
    size_t length = sizeof(packet.nd) + (probe ? 0 : sizeof(packet.option));
    packet.ip.ip6_vfc = 6 << 4;
    packet.ip.ip6_plen = htons((unsigned short)length);
    packet.ip.ip6_nxt = IPPROTO_ICMPV6;
    packet.ip.ip6_hlim = 255;
    inet_pton(AF_INET6, probe ? "ff02::1:ff00:0" : "ff02::1", &packet.ip.ip6_dst);
    if (probe) {
        memcpy(packet.ip.ip6_dst.s6_addr + 13, door->address + 13, 3);
        memcpy(to_mac + 2, packet.ip.ip6_dst.s6_addr + 12, 4);
        packet.nd.ask.nd_ns_type = ND_NEIGHBOR_SOLICIT;
        memcpy(&packet.nd.ask.nd_ns_target, door->address, 16);
    } else {
        memcpy(&packet.ip.ip6_src, door->address, 16);
        packet.nd.say.nd_na_type = ND_NEIGHBOR_ADVERT;
        packet.nd.say.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
        memcpy(&packet.nd.say.nd_na_target, door->address, 16);
        packet.option[0] = ND_OPT_TARGET_LINKADDR;
        packet.option[1] = 1;
        memcpy(packet.option + 2, door->mac, MAC);
    }
    unsigned sum = sum16((unsigned)length + IPPROTO_ICMPV6, &packet.ip.ip6_src, 32);
    packet.nd.say.nd_na_cksum = sum_end(sum16(sum, &packet.nd, length));
    return door_send(door, to_mac, &packet, sizeof(packet.ip) + length);
}

// Whose MAC a received packet gives for the address; false: it says nothing of it.
static bool heard(const struct link_door *door, const unsigned char *packet, size_t size, const unsigned char from[MAC],
                  unsigned char mac[MAC]) {
    if (door->family == AF_INET) {
        const struct ether_arp *arp = (const void *)packet;
        if (size < sizeof(*arp) || memcmp(arp->arp_spa, door->address, 4) != 0)
            return false;
        memcpy(mac, arp->arp_sha, MAC);
    } else {
        const struct ip6_hdr *ip = (const void *)packet;
        const struct nd_neighbor_advert *say = (const void *)(ip + 1);
        if (size < sizeof(*ip) + sizeof(*say) || ip->ip6_nxt != IPPROTO_ICMPV6 || ip->ip6_hlim != 255 ||
            say->nd_na_type != ND_NEIGHBOR_ADVERT || memcmp(&say->nd_na_target, door->address, 16) != 0)
            return false;
        memcpy(mac, from, MAC);
    }
    return memcmp(mac, door->mac, MAC) != 0;
}

static int probe(const struct link_door *door, long long milliseconds, int probes) {
    unsigned char packet[2048] __attribute__((aligned(8))), mac[MAC];
    long long begin = now_ms();
    for (int sent = 0;;) {
        long long passed = now_ms() - begin;
        if (passed >= milliseconds)
            return 0;
        long long next = sent < probes ? milliseconds * sent / (probes + 1) : milliseconds;
        if (sent < probes && passed >= next) {
            if ((door->family == AF_INET ? send_arp(door, ARPOP_REQUEST, true) : send_nd(door, true)) != 0)
                return complain("a probe", "could not be sent");
            sent++;
            continue;
        }
        struct pollfd wait = {.fd = door->fd, .events = POLLIN};
        if (poll(&wait, 1, (int)(next - passed)) <= 0)
            continue;
        struct sockaddr_ll from = {0};
        socklen_t length = sizeof(from);
        ssize_t size = recvfrom(door->fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&from, &length);
        if (size <= 0 || from.sll_pkttype == PACKET_OUTGOING || !heard(door, packet, (size_t)size, from.sll_addr, mac))
            continue;
        printf("%02x:%02x:%02x:%02x:%02x:%02x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
        return 1;
    }
}

// Both forms of a gratuitous ARP: there are switches and clients that heed only one.
static int claim(const struct link_door *door, long long count, long long milliseconds) {
    for (long long i = 0; i < count; i++) {
        if (i > 0)
            poll(NULL, 0, (int)milliseconds);
        int failed = door->family == AF_INET ? send_arp(door, ARPOP_REQUEST, false) | send_arp(door, ARPOP_REPLY, false)
                                             : send_nd(door, false);
        if (failed)
            return complain("an announcement", "could not be sent");
    }
    return 0;
}

static int tickle_one(const int fds[2], const char *server, unsigned sport, const char *client, unsigned cport) {
    struct tcphdr tcp = {
        .source = htons((unsigned short)sport), .dest = htons((unsigned short)cport), .doff = 5, .ack = 1};
    unsigned char s[16], c[16];
    tcp.window = htons(1234);
    int family = strchr(server, ':') ? AF_INET6 : AF_INET;
    size_t width = family == AF_INET ? 4 : 16;
    if (inet_pton(family, server, s) != 1 || inet_pton(family, client, c) != 1 || sport > 65535 || cport > 65535)
        return FAILED;
    unsigned sum = sum16(sum16((unsigned)sizeof(tcp) + IPPROTO_TCP, s, width), c, width);
    tcp.check = sum_end(sum16(sum, &tcp, sizeof(tcp)));
    unsigned char packet[sizeof(struct ip6_hdr) + sizeof(tcp)] __attribute__((aligned(8))) = {0};
    if (family == AF_INET) {
        struct iphdr *ip = (void *)packet; // the kernel fills in its checksum, length and id
        *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP};
        memcpy(&ip->saddr, s, 4);
        memcpy(&ip->daddr, c, 4);
        memcpy(ip + 1, &tcp, sizeof(tcp));
        struct sockaddr_in to = {.sin_family = AF_INET};
        memcpy(&to.sin_addr, c, 4);
        return sendto(fds[0], packet, sizeof(*ip) + sizeof(tcp), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) < 0;
    }
    struct ip6_hdr *ip = (void *)packet;
    ip->ip6_vfc = 6 << 4;
    ip->ip6_plen = htons(sizeof(tcp));
    ip->ip6_nxt = IPPROTO_TCP;
    ip->ip6_hlim = 64;
    memcpy(&ip->ip6_src, s, 16);
    memcpy(&ip->ip6_dst, c, 16);
    memcpy(ip + 1, &tcp, sizeof(tcp));
    struct sockaddr_in6 to = {.sin6_family = AF_INET6};
    memcpy(&to.sin6_addr, c, 16);
    return sendto(fds[1], packet, sizeof(*ip) + sizeof(tcp), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) < 0;
}

static int tickle(void) {
    // without IPv6 the second is not there, and its lines are not sent
    int fds[2] = {socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW),
                  socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)};
    char line[256], server[64], client[64];
    unsigned sport, cport;
    int sent = 0;
    if (fds[0] < 0)
        return complain("a raw socket", "could not be opened");
    while (sent < MAX_TICKLES && fgets(line, sizeof(line), stdin))
        if (sscanf(line, "%63s %u %63s %u", server, &sport, client, &cport) == 4)
            sent += tickle_one(fds, server, sport, client, cport) == 0;
    printf("%d\n", sent);
    return 0;
}

int main(int argc, char **argv) {
    struct link_door door;
    long long limit = 60000;
    if (argc == 2 && strcmp(argv[1], "tickle") == 0)
        return tickle();
    bool awaiting = argc == 5 && strcmp(argv[1], "await") == 0;
    bool probing = awaiting || (argc == 5 && strcmp(argv[1], "probe") == 0);
    bool claiming = argc == 6 && strcmp(argv[1], "claim") == 0;
    long long first = argc > 4 ? atoll(argv[4]) : 0, second = argc > 5 ? atoll(argv[5]) : 0;
    if ((!probing && !claiming) || first < 1 || first > limit || second < 0 || second > limit) {
        fprintf(stderr, "usage: baton-announce probe INTERFACE ADDRESS MILLISECONDS\n"
                        "       baton-announce await INTERFACE ADDRESS MILLISECONDS\n"
                        "       baton-announce claim INTERFACE ADDRESS COUNT MILLISECONDS\n"
                        "       baton-announce tickle <CONNECTIONS\n");
        return FAILED;
    }
    if (door_open(&door, argv[2], argv[3]) != 0)
        return FAILED;
    return probing ? probe(&door, first, awaiting ? 0 : PROBES) : claim(&door, first, second);
}
