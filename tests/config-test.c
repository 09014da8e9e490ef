/* The config file: what is right is read, what is wrong is told with file, line and remedy. */
#include "fs/config.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/stat.h>

#define KEY_A "0123456789abcdefghijklmnopqrstuvwxyzABCD"
#define HEAD "[volume]\nname = projects\nid = 000102030405060708090a0b0c0d0e0f\ncreated = 1700000000000000000\n"
#define NODE_A "[node a]\naddress = tcp://10.0.0.1:7400\npublic-key = " KEY_A "\nstore = /srv/a\n"
#define NODE_B "[node b]\naddress = tcp://10.0.0.2:7400\npublic-key = " KEY_A "\nstore = /srv/b/\nmount = /mnt/b\n"

static struct config config;
static char path[512], why[1024];

static void write_file(const char *name, const void *text, size_t length, mode_t mode) {
    FILE *file = fopen(name, "w");
    if (file == NULL || fwrite(text, 1, length, file) != length || fclose(file) != 0 || chmod(name, mode) != 0)
        bail("cannot write %s", name);
}

static int load(const char *text) {
    write_file(path, text, strlen(text), 0644);
    why[0] = '\0';
    return config_load(path, &config, why, sizeof why);
}

static void refused(const char *text, const char *sentence) {
    int error = load(text);
    bool told = strstr(why, sentence) != NULL && strncmp(why, path, strlen(path)) == 0;
    if (!ok(error == -EINVAL && told, "refused: %s", sentence))
        diag("%d: %s", error, why);
}

static void good(void) {
    is_int(0, load(HEAD NODE_A NODE_B), "a short file") || (diag("%s", why), 0);
    is_string("projects", config.volume, "name");
    is_int(2, config.node_count, "nodes");
    is_int(15, config.volume_id[15], "id");
    is_int(ACKNOWLEDGE_CLOSE, config.acknowledge, "acknowledge is close");
    is_int(FSYNC_DISK, config.fsync, "fsync is disk");
    is_int(TRANSPORT_CURVE, config.transport, "transport is curve");
    is_int(3600, config.history_seconds, "history is an hour");
    is_int(1 << 30, config.history_bytes, "journal size is 1 GiB");
    is_int(2000, config.lease_ms, "the lease is two seconds");
    is_int(32 << 20, config.scrub_rate, "a scrub reads 32 MiB a second");
    is_int(0, config.scrub_seconds, "when asked");
    is_int(8 << 20, config.verify_rate, "a comparison reads 8 MiB a second");
    is_int(0, config.verify_seconds, "when asked");
    is_int(50, config.catchup_share, "half of what a peer takes is its backlog's");
    is_int(1 << 20, config.catchup_floor, "new work may always make 1 MiB a second");
    is_string("/srv/b", config_node(&config, "b")->store, "a slash at the end goes");
    is_string("", config_node(&config, "a")->mount, "no mount");
    ok(config_node(&config, "c") == NULL, "no node c");
    is_int(0, config.export_count, "no exports");
    is_int(0, load(HEAD "hooks = /etc/hooks\n" NODE_A NODE_B "[export nfs]\naddress = 10.0.0.9/24 fd00::9/64@eth0\nport = 2049\nstop-timeout = 1s\n"
                   "[export files]\ntype = smb\naddress = 10.0.0.9/24 10.0.0.10/24\nmonitor-every = 0\nshares = a:/ b:/b\n"),
           "exports") || (diag("%s", why), 0);
    is_int(2, config.export_count, "two");
    is_string("nfs", config.exports[0].type, "the first one's type is its name");
    is_string("smb", config.exports[1].type, "the other one's is given");
    is_string("10.0.0.9/24 fd00::9/64@eth0 10.0.0.10/24", config.addresses, "addresses are one list, each once");
    is_int(1000, config.exports[0].stop_ms, "a time limit");
    is_int(0, config.exports[1].every_ms, "never looked at");
    is_int(1, config.exports[0].key_count, "a key of its own");
    is_string("port=2049", config.export_text + config.exports[0].keys, "is kept");
    is_string("shares=a:/ b:/b", config.export_text + config.exports[1].keys, "of the other one, too");
    is_string("/etc/hooks", config.hooks, "hooks");
    is_int(0, load(HEAD NODE_A NODE_B), "the short file again");
    ok(config.nodes[0].number != config.nodes[1].number && config.nodes[0].number != 0, "numbers");
    is_int(0,
           load("; comment\n" HEAD "acknowledge = never ; why not\nfsync = memory\ntransport = clear\n"
                "mount-options = dev,suid\n\n[node a]\naddress = tcp://[fd00::1]:7400\nstore=/srv/a\n"
                "  ; indented comment\n[witness]\naddress = tcp://10.0.0.3:7400\n[journal]\nhistory = 7d\nsize = 64MiB\n"
                "[scrub]\nrate = 1GiB\nevery = 7d\n[verify]\nrate = 2MiB\nevery = 1d\n"
                "[catch-up]\nshare = 25%\nfloor = 64KiB\n[lease]\nduration = 500ms"),
           "everything set") || (diag("%s", why), 0);
    ok(config.acknowledge == ACKNOWLEDGE_NEVER && config.fsync == FSYNC_MEMORY && config.transport == TRANSPORT_CLEAR &&
           config.has_witness && config.history_seconds == 604800 && config.history_bytes == 64 << 20 &&
           config.scrub_rate == 1 << 30 && config.scrub_seconds == 604800 && config.verify_rate == 2 << 20 &&
           config.verify_seconds == 86400 && config.catchup_share == 25 && config.catchup_floor == 64 << 10 &&
            config.lease_ms == 500 && strcmp(config.options, "dev,suid") == 0,
       "... and read");
}

static void bad(void) {
    refused("", "[volume] has no name");
    refused(HEAD, "has no place in it");
    refused(HEAD "acknowlege = close\n" NODE_A, ":5: unknown key \"acknowlege\" in [volume]; known are name, id,");
    refused(HEAD "acknowledge = soon\n" NODE_A, ":5: acknowledge = \"soon\" is not known; choose close, write or never");
    refused(HEAD "cpu-idle = never\n", ":5: cpu-idle = \"never\" is not known; choose auto, sleep");
    refused(HEAD "transport = pigeon\n", ":5: transport = \"pigeon\" is not known; choose curve, clear");
    refused(HEAD "name = twice\n", ":5: name is given twice");
    refused(HEAD NODE_A NODE_A, "another [node a]");
    refused(HEAD "[exports]\n", ":5: unknown section [exports]");
    refused(HEAD "[node a\n", ":5: a section begins here but has no ]");
    refused(HEAD "nonsense\n" NODE_A, ":5: this is neither");
    refused(HEAD NODE_A "  store = /x\n", ":9: this line begins with a space");
    refused("key = value\n", ":1: \"key\" stands outside");
    refused(HEAD "[node ../a]\n", "cannot name a node");
    refused(HEAD "[node a]\naddress = tcp://host:7400\n", ":6: address = \"tcp://host:7400\" is not tcp://IP:PORT");
    refused(HEAD "[node a]\naddress = tcp://1.2.3.4:65532\n", "is not tcp://IP:PORT");
    refused(HEAD "[node a]\nstore = relative\n", "must be a full path");
    refused(HEAD "[node a]\nmount = //\n", "cannot be");
    refused(HEAD "[node a]\nstore = /srv/a\n", "[node a] has no address");
    refused(HEAD "[node a]\naddress = tcp://10.0.0.1:7400\nstore = /srv/a\n", "[node a] has no public-key");
    refused(HEAD "[node a]\npublic-key = short\n", "public-key must be the 40 characters");
    refused(HEAD NODE_A "mount = /srv/a/mount\n", "lie inside each other");
    refused(HEAD NODE_A "mount = /srv\n", "lie inside each other");
    refused(HEAD NODE_A "[witness]\naddress = tcp://10.0.0.1:7404\npublic-key = " KEY_A "\n", "collide");
    refused(HEAD "preferred = c\n" NODE_A, "preferred names no node");
    refused(HEAD "failback = auto\n" NODE_A, "failback = auto needs preferred");
    refused(HEAD NODE_A "[spare]\nafter = 1h\n", "[spare] has no node");
    refused(HEAD NODE_A "[spare]\nnode = a\n", "at least three nodes");
    refused(HEAD NODE_A "[spare]\nafter = 1ms\n", ":10: after = \"1ms\"");
    refused(HEAD NODE_A "[fence]\ntimeout = 5s\n", "[fence] has no program");
    refused(HEAD NODE_A "[export vip]\n", "no section is needed for the address itself");
    refused(HEAD NODE_A "[export a/b]\n", ":9: \"a/b\" cannot name an export");
    refused(HEAD NODE_A "[export nfs]\nport = 1\n[export nfs]\n", ":11: there is another [export nfs] above");
    refused(HEAD NODE_A "[export nfs]\ntype = vip\n", "is no exporter's name");
    refused(HEAD NODE_A "[export nfs]\naddress = 10.0.0.1\n", ":10: \"10.0.0.1\" is no address here");
    refused(HEAD NODE_A "[export nfs]\naddress = 10.0.0.1/33\n", "is no address here");
    refused(HEAD NODE_A "[export nfs]\naddress = 10.0.0.1/24@\n", "is no address here");
    refused(HEAD NODE_A "[export nfs]\naddress = 10.0.0.1/24@eth0;reboot\n", "is no address here");
    refused(HEAD NODE_A "[export nfs]\nstop-timeout = 1h\n", "write a time between");
    refused(HEAD NODE_A "[export nfs]\naddress = 10.9.9.9/24 10.0.0.1/24@eth0\n", "10.0.0.1 is the address of a; shares need one of their own");
    refused(HEAD NODE_A "[export nfs]\nsome-key = 1\nsome-key = 2\n", ":11: some-key is given twice in [export nfs]");
    refused(HEAD NODE_A "[export nfs]\nSome_Key = 1\n", "cannot be a key of an export");
    refused(HEAD NODE_A "[fence]\nprogram = off\n", ":10: program = \"off\" must be a full path");
    refused(HEAD NODE_A "[fence]\nprogram = /sbin/off\n", "volume of two nodes");
    refused(HEAD NODE_A "[etcd]\nprefix = x\n", "[etcd] has no endpoints");
    refused(HEAD NODE_A "[etcd]\nendpoints = ftp://x\n", ":10: endpoints: \"ftp://x\" is not");
    refused(HEAD NODE_A "[etcd]\nendpoints = http://10.0.0.9:2379\nuser = x\n", "belong together");
    refused(HEAD NODE_A "[etcd]\nendpoints = http://10.0.0.9:2379\n[witness]\naddress = tcp://10.0.0.3:1\npublic-key = " KEY_A "\n",
            "[etcd] and [witness]");
    refused(HEAD NODE_A "[lease]\nafter-power-cut = never\n", "choose wait, go");
    refused(HEAD NODE_A "[journal]\nhistory = long\n", ":10: history = \"long\"");
    refused(HEAD NODE_A "[journal]\nsize =\n", ":10: size has no value");
    refused(HEAD NODE_A "[catch-up]\nshare = half\n", ":10: share = \"half\" is not a share");
    refused(HEAD NODE_A "[catch-up]\nshare = 50\n", ":10: share = \"50\" is not a share");
    refused(HEAD NODE_A "[catch-up]\nshare = 91%\n", ":10: share = 91% is out of range");
    refused(HEAD NODE_A "[catch-up]\nfloor = 1KiB\n", ":10: floor = \"1KiB\"");
    refused(HEAD NODE_A "[scrub]\nrate = fast\n", ":10: rate = \"fast\"");
    refused(HEAD NODE_A "[scrub]\nrate = 1KiB\n", ":10: rate = \"1KiB\"");
    refused(HEAD NODE_A "[scrub]\nevery = 5s\n", ":10: every = 5s is too short");
    refused(HEAD NODE_A "[verify]\nrate = 1KiB\n", ":10: rate = \"1KiB\"");
    refused(HEAD NODE_A "[verify]\nevery = 5s\n", ":10: every = 5s is too short");
    refused(HEAD NODE_A "[verify]\nwith = b\n", ":10: unknown key \"with\" in [verify]");
    refused(HEAD NODE_A "[lease]\nduration = 20ms\n", "out of range");
    refused("[volume]\nname = projects\nid = xyz\n", ":3: id must be");
    refused("[volume]\nname = a b\n", ":2: \"a b\" cannot name a volume");

    char line[4096];
    memset(line, 'x', sizeof line);
    memcpy(line, "[volume]\nname = ", 16);
    line[sizeof line - 1] = '\0';
    refused(line, ":2: this line has more than");
    write_file(path, "[volume]\nname = a\0b\n", 20, 0644);
    ok(config_load(path, &config, why, sizeof why) == -EINVAL && strstr(why, ":2: ") != NULL, "a NUL byte");
    ok(config_load("/nonexistent/file", &config, why, sizeof why) == -ENOENT && strstr(why, "cannot be read") != NULL,
       "no file");
    is_int(-EINVAL, config_load("/", &config, why, sizeof why), "a directory");
}

/* Random bytes, and good files with random damage: a sentence or success, nothing else. */
static void noise(void) {
    static const char sample[] = HEAD NODE_A NODE_B;
    uint64_t state = test_seed();
    char text[sizeof sample];
    unsigned silent = 0;

    for (unsigned round = 0; round < 3000; round++) {
        memcpy(text, sample, sizeof sample);
        for (uint64_t i = test_random(&state) % 8; i > 0; i--)
            text[test_random(&state) % (sizeof text - 1)] = (char)test_random(&state);
        write_file(path, text, test_random(&state) % sizeof text, 0644);
        why[0] = '\0';
        if (config_load(path, &config, why, sizeof why) != 0 && why[0] == '\0')
            silent++;
    }
    is_int(0, silent, "damaged files are refused with a sentence");
}

static void secrets(void) {
    char key[600], secret[KEY_TEXT];

    load(HEAD NODE_A);
    snprintf(key, sizeof key, "%s.a.key", path);
    is_int(-ENOENT, config_secret(&config, "a", NULL, secret, why, sizeof why), "no key");
    write_file(key, KEY_A "\n", 41, 0600);
    is_int(0, config_secret(&config, "a", NULL, secret, why, sizeof why), "a key");
    is_string(KEY_A, secret, "... is read");
    is_int(0, config_secret(&config, "b", key, secret, why, sizeof why), "a key elsewhere");
    chmod(key, 0640);
    is_int(-EACCES, config_secret(&config, "a", NULL, secret, why, sizeof why), "a key that others can read");
    ok(strstr(why, "chmod 600") != NULL, "... with the remedy");
    write_file(key, KEY_A "x\n", 42, 0600);
    is_int(-EINVAL, config_secret(&config, "a", NULL, secret, why, sizeof why), "a key too long");
    write_file(key, "", 0, 0600);
    is_int(-EINVAL, config_secret(&config, "a", NULL, secret, why, sizeof why), "an empty key");
}

static void values(void) {
    uint64_t value;

    ok(parse_duration("2s", &value) == 0 && value == 2000, "2s");
    ok(parse_duration("500ms", &value) == 0 && value == 500, "500ms");
    ok(parse_duration("3d", &value) == 0 && value == 259200000, "3d");
    ok(parse_duration("0", &value) == 0 && value == 0, "0");
    ok(parse_duration("5", &value) != 0 && parse_duration("", &value) != 0 && parse_duration("-1s", &value) != 0 &&
           parse_duration("s", &value) != 0 && parse_duration("99999999999999999999s", &value) != 0 &&
           parse_duration("18446744073709551615d", &value) != 0,
       "no durations");
    ok(parse_size("4096", &value) == 0 && value == 4096, "4096");
    ok(parse_size("64MiB", &value) == 0 && value == 64u << 20, "64MiB");
    ok(parse_size("1MB", &value) != 0 && parse_size("17179869184GiB", &value) != 0, "no sizes");
}

int main(void) {
    plan_lazy();
    snprintf(path, sizeof path, "%s/volume.conf", test_directory());
    good();
    bad();
    noise();
    secrets();
    values();
    return 0;
}
