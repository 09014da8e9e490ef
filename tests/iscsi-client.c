/* An iSCSI initiator for tests:   iscsi-client URL STEP...   e.g. iscsi://10.77.0.100/iqn.../1 write:7:0:2048 sync
 * Steps, in one session: write:SEED:LBA:BLOCKS, verify:SEED:LBA:BLOCKS (blocks of 512 bytes; their content follows from the seed
 * and the address), sync (SYNCHRONIZE CACHE of the whole disk), unmap:LBA:BLOCKS, identity (vendor, product, serial number and
 * the identifiers of VPD page 0x83, in a line), cache (the bit WCE), size (in blocks).
 * CHAP by environment: LIBISCSI_CHAP_USERNAME, LIBISCSI_CHAP_PASSWORD, _TARGET_USERNAME, _TARGET_PASSWORD.
 * Ends with 1 at the first step that fails, and says why. It does not connect again by itself. */
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, AT_ONCE = 128 };

static struct iscsi_context *iscsi;
static int lun;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", iscsi_get_error(iscsi));
    exit(1);
}

static struct scsi_task *good(struct scsi_task *task, const char *step) {
    if (!task || task->status != SCSI_STATUS_GOOD)
        fail("%s failed", step);
    return task;
}

static void fill(unsigned char *block, uint64_t seed, uint64_t lba) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + lba + 1;
    for (size_t i = 0; i < BLOCK; i += sizeof state) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(block + i, &state, sizeof state);
    }
}

static void each(const char *step, uint64_t seed, uint32_t lba, uint32_t blocks, int writes) {
    static unsigned char wanted[AT_ONCE * BLOCK];
    while (blocks > 0) {
        uint32_t count = blocks < AT_ONCE ? blocks : AT_ONCE, length = count * BLOCK;
        for (uint32_t i = 0; i < count; i++)
            fill(wanted + (size_t)i * BLOCK, seed, lba + i);
        struct scsi_task *task = good(writes ? iscsi_write10_sync(iscsi, lun, lba, wanted, length, BLOCK, 0, 0, 0, 0, 0)
                                             : iscsi_read10_sync(iscsi, lun, lba, length, BLOCK, 0, 0, 0, 0, 0),
            step);
        if (!writes && ((uint32_t)task->datain.size != length || memcmp(task->datain.data, wanted, length)))
            fail("%s: other content at block %" PRIu32 " and after", step, lba);
        scsi_free_scsi_task(task);
        lba += count;
        blocks -= count;
    }
}

static void unmap(const char *step, uint64_t lba, uint32_t blocks) {
    struct unmap_list list = {.lba = lba, .num = blocks};
    scsi_free_scsi_task(good(iscsi_unmap_sync(iscsi, lun, 0, 0, &list, 1), step));
}

static void identity(void) {
    struct scsi_task *task = good(iscsi_inquiry_sync(iscsi, lun, 0, 0, 255), "identity");
    struct scsi_inquiry_standard *standard = scsi_datain_unmarshall(task);
    if (!standard)
        fail("no inquiry data");
    printf("%s %s", standard->vendor_identification, standard->product_identification);
    scsi_free_scsi_task(task);
    static const int pages[] = {0x80, 0x83};
    for (size_t page = 0; page < sizeof pages / sizeof *pages; page++) {
        task = good(iscsi_inquiry_sync(iscsi, lun, 1, pages[page], 255), "identity");
        printf(" %02x:", pages[page]);
        for (int i = 4; i < task->datain.size; i++)
            printf("%02x", task->datain.data[i]);
        scsi_free_scsi_task(task);
    }
    putchar('\n');
}

static void cache(void) {
    struct scsi_task *task =
        good(iscsi_modesense6_sync(iscsi, lun, 1, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CACHING, 0, 255), "cache");
    struct scsi_mode_sense *sense = scsi_datain_unmarshall(task);
    struct scsi_mode_page *page = sense ? scsi_modesense_get_page(sense, SCSI_MODEPAGE_CACHING, 0) : NULL;
    if (!page)
        fail("no caching page");
    puts(page->caching.wce ? "on" : "off");
    scsi_free_scsi_task(task);
}

static void size(void) {
    struct scsi_task *task = good(iscsi_readcapacity16_sync(iscsi, lun), "size");
    struct scsi_readcapacity16 *capacity = scsi_datain_unmarshall(task);
    if (!capacity)
        fail("no capacity");
    printf("%" PRIu64 "\n", capacity->returned_lba + 1);
    scsi_free_scsi_task(task);
}

static void take(const char *step) {
    uint64_t seed, lba;
    uint32_t blocks;
    if (sscanf(step, "write:%" SCNu64 ":%" SCNu64 ":%" SCNu32, &seed, &lba, &blocks) == 3)
        each(step, seed, (uint32_t)lba, blocks, 1);
    else if (sscanf(step, "verify:%" SCNu64 ":%" SCNu64 ":%" SCNu32, &seed, &lba, &blocks) == 3)
        each(step, seed, (uint32_t)lba, blocks, 0);
    else if (sscanf(step, "unmap:%" SCNu64 ":%" SCNu32, &lba, &blocks) == 2)
        unmap(step, lba, blocks);
    else if (!strcmp(step, "sync"))
        scsi_free_scsi_task(good(iscsi_synchronizecache10_sync(iscsi, lun, 0, 0, 0, 0), step));
    else if (!strcmp(step, "identity"))
        identity();
    else if (!strcmp(step, "cache"))
        cache();
    else if (!strcmp(step, "size"))
        size();
    else {
        fprintf(stderr, "no such step: %s\n", step);
        exit(2);
    }
    printf("%s done\n", step);
    fflush(stdout);
}

int main(int count, char **arguments) {
    const char *name = getenv("INITIATOR");
    if (count < 3) {
        fprintf(stderr, "usage: iscsi-client URL STEP...\n");
        return 2;
    }
    iscsi = iscsi_create_context(name ? name : "iqn.2026-01.invalid.test:client");
    if (!iscsi)
        return 2;
    struct iscsi_url *url = iscsi_parse_full_url(iscsi, arguments[1]);
    if (!url)
        fail("%s is no URL of a disk", arguments[1]);
    lun = url->lun;
    iscsi_set_targetname(iscsi, url->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(iscsi, 1);
    if (iscsi_full_connect_sync(iscsi, url->portal, lun))
        fail("no session at %s", url->portal);
    for (int i = 2; i < count; i++)
        take(arguments[i]);
    iscsi_logout_sync(iscsi);
    iscsi_destroy_url(url);
    iscsi_destroy_context(iscsi);
    return 0;
}
