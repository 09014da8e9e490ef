#include "exporters/address.h"

#include <arpa/inet.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <linux/if_addr.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* libnl has error numbers of its own. */
static int error_of(int rc) {
    switch (-rc) {
    case NLE_SUCCESS:
        return 0;
    case NLE_NOMEM:
        return -ENOMEM;
    case NLE_PERM:
        return -EPERM;
    case NLE_NOADDR:
    case NLE_OBJ_NOTFOUND:
        return -EADDRNOTAVAIL;
    default:
        return -EIO;
    }
}

/* The next address of the list, without prefix and interface; false: there is none. */
static bool next_of(const char **list, struct nl_addr **address) {
    char one[INET6_ADDRSTRLEN];
    while (**list == ' ')
        (*list)++;
    size_t length = strcspn(*list, " "), host = strcspn(*list, "/@ ");
    if (length == 0)
        return false;
    snprintf(one, sizeof one, "%.*s", (int)MIN(host, sizeof one - 1), *list);
    *list += length;
    *address = NULL;
    return nl_addr_parse(one, strchr(one, ':') ? AF_INET6 : AF_INET, address) == 0;
}

/* The one after `before` (NULL: the first): an address can be on two interfaces, or twice with two prefixes. */
static struct rtnl_addr *find(struct nl_cache *cache, const struct nl_addr *address, struct rtnl_addr *before) {
    struct nl_object *object = before ? nl_cache_get_next((struct nl_object *)before) : nl_cache_get_first(cache);
    for (; object; object = nl_cache_get_next(object)) {
        struct rtnl_addr *here = (struct rtnl_addr *)object;
        const struct nl_addr *local = rtnl_addr_get_local(here);
        if (local && nl_addr_get_family(local) == nl_addr_get_family(address) && nl_addr_get_len(local) == nl_addr_get_len(address) &&
            memcmp(nl_addr_get_binary_addr(local), nl_addr_get_binary_addr(address), nl_addr_get_len(address)) == 0)
            return here;
    }
    return NULL;
}

/* The lifetime alone: flags and all else as they are. */
static int renew(struct nl_sock *socket, struct rtnl_addr *here, uint32_t seconds) {
    /* also one that somebody has put there for ever: it is to go with the lease */
    bool deprecated = !(rtnl_addr_get_flags(here) & IFA_F_PERMANENT) && rtnl_addr_get_preferred_lifetime(here) == 0;
    rtnl_addr_set_valid_lifetime(here, seconds);
    rtnl_addr_set_preferred_lifetime(here, deprecated ? 0 : seconds);
    return error_of(rtnl_addr_add(socket, here, NLM_F_REPLACE));
}

static int open_socket(struct nl_sock **socket, struct nl_cache **cache) {
    *cache = NULL;
    *socket = nl_socket_alloc();
    if (!*socket)
        return -ENOMEM;
    int rc = nl_connect(*socket, NETLINK_ROUTE);
    if (rc == 0)
        rc = rtnl_addr_alloc_cache(*socket, cache);
    if (rc < 0)
        nl_socket_free(*socket);
    return error_of(rc);
}

static int each(const char *addresses, int (*act)(struct nl_sock *, struct rtnl_addr *, uint32_t), uint32_t seconds, int *here) {
    struct nl_sock *socket;
    struct nl_cache *cache;
    struct nl_addr *address;
    int all = 0, failed = 0, rc = open_socket(&socket, &cache);
    if (rc)
        return rc;
    *here = 0;
    while (next_of(&addresses, &address)) {
        struct rtnl_addr *found = find(cache, address, NULL);
        all++;
        *here += found != NULL;
        for (; found; found = find(cache, address, found))
            if ((rc = act(socket, found, seconds)) != 0)
                failed = rc;
        nl_addr_put(address);
    }
    nl_cache_free(cache);
    nl_socket_free(socket);
    return failed ? failed : all;
}

int address_renew(const char *addresses, uint32_t seconds) {
    int here, all = each(addresses, renew, seconds, &here);
    return all < 0 ? all : all - here;
}

/* For ioctl(), which needs one. */
static int socket_of_nothing(void) {
    return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int look_for_link(struct nl_sock *socket, struct rtnl_addr *here, uint32_t seconds) {
    struct ifreq request = {.ifr_flags = 0};
    (void)socket;
    (void)seconds;
    AUTO_CLOSE int fd = socket_of_nothing();
    if (fd < 0 || !if_indextoname((unsigned)rtnl_addr_get_ifindex(here), request.ifr_name) || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return 0; /* the interface has gone just now, and the address with it */
    return request.ifr_flags & IFF_RUNNING ? 0 : -ENOLINK;
}

int address_linked(const char *addresses) {
    int here, rc = each(addresses, look_for_link, 0, &here);
    return rc < 0 ? rc : 0;
}

static int take_off(struct nl_sock *socket, struct rtnl_addr *here, uint32_t seconds) {
    (void)seconds;
    int rc = error_of(rtnl_addr_delete(socket, here, 0));
    return rc == -EADDRNOTAVAIL ? 0 : rc; /* it has gone by itself */
}

int address_remove(const char *addresses) {
    int here, all = each(addresses, take_off, 0, &here);
    return all < 0 ? all : here;
}
