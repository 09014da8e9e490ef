/* An etcd that lets in only whom it knows: by certificates, which openssl makes here, and by users with passwords, whose tokens
 * end. */
#include "tests/etcd_cluster.h"
#include "membership/etcd_message.h"
#include "tests/tap.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

static char path_room[8][600];

static const char *file(const char *name) {
    static unsigned turn;
    char *path = path_room[turn++ % 8];
    snprintf(path, 600, "%s/%s", test_directory(), name);
    return path;
}

static void write_file(const char *name, const char *text, mode_t mode) {
    FILE *out = fopen(file(name), "w");
    PROMISE(out != NULL);
    fputs(text, out);
    fclose(out);
    PROMISE(chmod(file(name), mode) == 0);
}

static bool reads(struct etcd_node *node) {
    struct register_value value;
    return node->reg->engine->read(node->reg, &value) == 0;
}

static void begin(struct etcd_node *node) {
    struct register_value none = {0}, value = etcd_next(&none, node->self->name, true);
    ok(AWAIT(register_settle(node->reg, &none, &value) == 0), "%s is the first primary", node->self->name);
    is_int(0, node->reg->engine->lease->take(node->reg, &value), "it takes the lease");
    ok(AWAIT(etcd_holds(node)), "and has it");
}

/* ---- Certificates ---------------------------------------------------------------------------------------------------- */

static void make_certificates(void) {
    char command[4096];
    write_file("certify", "set -e; cd \"$1\"; mkdir tls; cd tls\n"
               "key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key; }\n"
               "for ca in ca other; do key $ca; openssl req -x509 -new -key $ca.key -subj /CN=$ca -days 2 -out $ca.crt; done\n"
               "sign() { key $2; openssl req -new -key $2.key -subj /CN=$2 -out $2.csr\n"
               "  echo subjectAltName=IP:127.0.0.1 >ext; openssl x509 -req -in $2.csr -CA $1.crt -CAkey $1.key -CAcreateserial"
               " -days 2 -extfile ext -out $2.crt; }\n"
               "sign ca server; sign ca client; sign other stranger\n", 0600);
    snprintf(command, sizeof command, "sh '%s' '%s' >'%s' 2>&1", file("certify"), test_directory(), file("certify.log"));
    if (system("openssl version >/dev/null 2>&1") != 0)
        skip_all("openssl is not here; install openssl");
    if (system(command) != 0)
        bail("openssl makes no certificates; see %s", file("certify.log"));
}

static void certified(struct etcd_node *node, const struct etcd_cluster *cluster, const char *ca, const char *own) {
    etcd_node_config(node, cluster, "a", 2000);
    if (ca)
        snprintf(node->config.etcd.ca, sizeof node->config.etcd.ca, "%s/tls/%s.crt", test_directory(), ca);
    if (own) {
        snprintf(node->config.etcd.certificate, sizeof node->config.etcd.certificate, "%s/tls/%s.crt", test_directory(), own);
        snprintf(node->config.etcd.key, sizeof node->config.etcd.key, "%s/tls/%s.key", test_directory(), own);
    }
}

static void refused(const struct etcd_cluster *cluster, const char *ca, const char *own, const char *word, const char *what) {
    static struct etcd_node node;
    struct lease_view view;
    certified(&node, cluster, ca, own);
    is_int(0, etcd_node_open_as(&node), "%s: opened", what);
    ok(!reads(&node), "nothing is read");
    ok(AWAIT((node.reg->engine->lease->view(node.reg, &view), view.voters[0].why[0] && strcasestr(view.voters[0].why, word))),
       "status says why: %s", view.voters[0].why);
    etcd_node_close(&node);
}

static void test_certificates(void) {
    static struct etcd_cluster cluster = {.tls = true};
    static struct etcd_node node;
    make_certificates();
    etcd_cluster_start(&cluster, "certified", 1, true);
    certified(&node, &cluster, "ca", "client");
    is_int(0, etcd_node_open_as(&node), "with certificates: opened");
    begin(&node);
    int64_t until = atomic_load(&node.shared->until);
    ok(AWAIT(atomic_load(&node.shared->until) > until + 3 * SECOND), "the lease is renewed");
    etcd_node_close(&node);
    refused(&cluster, "other", "client", "certificate", "a server that another authority would have to have signed");
    refused(&cluster, NULL, "client", "certificate", "an authority that this host does not know");
    refused(&cluster, "ca", NULL, "", "no certificate of our own");
    refused(&cluster, "ca", "stranger", "", "one that another authority has signed");

    certified(&node, &cluster, "ca", "client");
    snprintf(node.config.etcd.ca, sizeof node.config.etcd.ca, "%s", file("nothing"));
    ok(etcd_node_open_as(&node) != 0 && strstr(node.why, "nothing"), "a file that is not there is told: %s", node.why);
    certified(&node, &cluster, "ca", "client");
    PROMISE(chmod(node.config.etcd.key, 0644) == 0);
    ok(etcd_node_open_as(&node) != 0 && strstr(node.why, "chmod"), "a key that others can read is refused: %s", node.why);
    etcd_cluster_end(&cluster);
}

/* ---- Users ----------------------------------------------------------------------------------------------------------- */

static void tell(const struct etcd_cluster *cluster, const char *path, const char *body, const char *token) {
    char answer[2048];
    long status = etcd_post(cluster->members[0].url, path, body, token, answer, sizeof answer);
    is_int(200, status, "etcd: %s", path);
    if (status != 200)
        diag("%s", answer);
}

static void make_users(const struct etcd_cluster *cluster) {
    tell(cluster, "/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"r\"}", NULL);
    tell(cluster, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}", NULL);
    tell(cluster, "/v3/auth/user/add", "{\"name\":\"baton\",\"password\":\"secret \\\"1\\\"\"}", NULL);
    tell(cluster, "/v3/auth/user/add", "{\"name\":\"guest\",\"password\":\"g\"}", NULL);
    tell(cluster, "/v3/auth/role/add", "{\"name\":\"keeper\"}", NULL);
    /* baton/ to baton0 */
    tell(cluster, "/v3/auth/role/grant",
         "{\"name\":\"keeper\",\"perm\":{\"permType\":\"READWRITE\",\"key\":\"YmF0b24v\",\"range_end\":\"YmF0b24w\"}}", NULL);
    tell(cluster, "/v3/auth/user/grant", "{\"user\":\"baton\",\"role\":\"keeper\"}", NULL);
}

static void known(struct etcd_node *node, const struct etcd_cluster *cluster, const char *name, const char *user,
                  const char *password) {
    etcd_node_config(node, cluster, name, 6000);
    if (!user)
        return;
    snprintf(node->config.etcd.user, sizeof node->config.etcd.user, "%s", user);
    snprintf(node->config.etcd.password_file, sizeof node->config.etcd.password_file, "%s", file(user));
    write_file(user, password, 0600);
}

static void not_let_in(const struct etcd_cluster *cluster, const char *user, const char *password, const char *word,
                       const char *what) {
    static struct etcd_node node;
    struct lease_view view;
    known(&node, cluster, "c", user, password);
    is_int(0, etcd_node_open_as(&node), "%s: opened", what);
    ok(!reads(&node), "nothing is read");
    ok(AWAIT((node.reg->engine->lease->view(node.reg, &view), view.voters[0].why[0] && strcasestr(view.voters[0].why, word))),
       "status says why: %s", view.voters[0].why);
    etcd_node_close(&node);
}

static void test_users(void) {
    static struct etcd_cluster cluster = {.more = {"--auth-token-ttl", "2", "--bcrypt-cost", "4"}};
    static struct etcd_node a, b;
    etcd_cluster_start(&cluster, "users", 1, true);
    known(&a, &cluster, "a", "baton", "secret \"1\"\n");
    is_int(0, etcd_node_open_as(&a), "a user where there are none yet: opened");
    begin(&a);
    make_users(&cluster);
    tell(&cluster, "/v3/auth/enable", "{}", NULL);
    int64_t until = clock_boot() + 7 * SECOND;
    ok(AWAIT(atomic_load(&a.shared->until) > until), "when users are switched on, it logs in, and the lease is renewed");
    is_int(0, atomic_load(&a.lost), "nothing is lost");

    not_let_in(&cluster, NULL, NULL, "set user", "nobody's name");
    not_let_in(&cluster, "baton", "wrong\n", "authentication failed", "a wrong password");
    not_let_in(&cluster, "guest", "g\n", "permission denied", "a user without rights");
    known(&b, &cluster, "b", "baton", "secret \"1\"\n"); /* the right one again, for a reads its file now and then */
    write_file("baton", "secret \"1\"", 0644);
    ok(etcd_node_open_as(&b) != 0 && strstr(b.why, "chmod"), "a password that others can read is refused: %s", b.why);
    write_file("baton", "two\nlines\n", 0600);
    ok(etcd_node_open_as(&b) != 0 && strstr(b.why, "one line"), "so is what is no password: %s", b.why);
    known(&b, &cluster, "b", "baton", "secret \"1\"");
    is_int(0, etcd_node_open_as(&b), "the right one is let in");
    ok(AWAIT(reads(&b)), "and reads");

    /* A member that was started again knows no token that it has given. */
    etcd_member_kill(&cluster, 0);
    etcd_member_start(&cluster, 0);
    until = clock_boot() + 8 * SECOND;
    ok(AWAIT(reads(&b)), "when tokens are forgotten, it logs in again");
    /* Tokens that nobody uses end after 2 s here. */
    etcd_node_close(&a);
    known(&a, &cluster, "a", "baton", "secret \"1\"");
    a.config.lease_ms = 60000;
    is_int(0, etcd_node_open_as(&a), "a node that asks seldom");
    for (unsigned i = 0; i < 2; i++) {
        ok(AWAIT(reads(&a)), "reads");
        until = clock_boot() + 3 * SECOND;
        ok(AWAIT(clock_boot() > until), "a while later");
    }
    ok(reads(&a), "it reads with a new token");
    is_int(0, register_etcd_release(&a.config, a.self, EPOCH_MAKE(9, 1), 9, 5 * SECOND), "the supervisor logs in, too");
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_cluster_end(&cluster);
}

int main(void) {
    plan_lazy();
    test_certificates();
    test_users();
    return 0;
}
