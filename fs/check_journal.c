/* The journal: one record after the other, each chained to the one before, and its local part; the epochs; the tail. */
#include "fs/check_parts.h"
#include "fs/row.h"

typedef unsigned long long ull;

/* Images of rows: whole, of tables that are replicated, and such as can be in them. */
static void check_images(struct check *check, uint64_t lsn, struct span undo) {
    struct undo_image image;
    uint32_t at = 0;
    bool readable = true;
    int more;
    while ((more = undo_next(&undo, &at, &image)) == 1)
        readable &= !image.existed || row_is_possible(image.table, image.key, image.value);
    if (more < 0 || !readable)
        found(check, "record %llu of the journal: what it replaced cannot be read, so it cannot be undone", (ull)lsn);
}

static void check_chain(struct check *check, uint64_t lsn, const struct journal_head *head, struct span bytes,
                        const struct record *record) {
    uint8_t chain[CHAIN_SIZE];
    if (memcmp(head->previous_chain, check->chain, CHAIN_SIZE) != 0)
        found(check, "record %llu of the journal does not follow the one before it: the history is broken there",
              (ull)lsn);
    record_chain(head->previous_chain, bytes.data, bytes.length, chain);
    if (memcmp(chain, record->head.chain, CHAIN_SIZE) != 0)
        found(check, "record %llu of the journal fails its chain: it is not what was written", (ull)lsn);
    memcpy(check->chain, record->head.chain, CHAIN_SIZE);
}

static void check_record(struct check *check, uint64_t lsn, const struct journal_head *head,
                         const struct journal_row *row) {
    struct record record;
    const char *why;
    uint64_t blocks = 0;

    if (record_decode(row->record.data, row->record.length, &record, &why) != 0) {
        found(check, "record %llu of the journal is malformed (%s): history ends there", (ull)lsn, why);
        memset(check->chain, 0, CHAIN_SIZE);
        return;
    }
    if (record.head.lsn != lsn)
        found(check, "record %llu of the journal says that it is record %llu", (ull)lsn, (ull)record.head.lsn);
    check_chain(check, lsn, head, row->record, &record);
    if (record.head.epoch < head->previous_epoch)
        found(check, "record %llu of the journal has an older epoch than the one before it", (ull)lsn);
    for (uint32_t i = 0; i < row->place_count; i++) {
        struct place place;
        memcpy(&place, (const uint8_t *)row->places + i * sizeof place, sizeof place);
        blocks += place.count;
    }
    if (blocks != record.head.blocks)
        found(check, "record %llu of the journal has %u blocks, but places for %llu", (ull)lsn, record.head.blocks,
              (ull)blocks);
    record_release(&record);
}

static bool take_row(struct check *check, struct span key, struct span value, struct journal_head *head,
                     struct journal_row *row, uint64_t *lsn) {
    if (key.length == 8 && journal_row_parse(value, row) == 0) {
        *lsn = be64_get(key.data);
        memcpy(head, value.data, sizeof *head);
        return true;
    }
    if (!check->second_walk)
        found(check, "a row of the journal has a wrong length: history ends there");
    return false;
}

static void take_journal(struct check *check, struct span key, struct span value) {
    struct journal_head head;
    struct journal_row row;
    uint64_t lsn;

    if (!take_row(check, key, value, &head, &row, &lsn))
        return;
    if (lsn != check->next_lsn) {
        found(check, "the journal lacks records %llu to %llu: history cannot be followed or undone past them",
              (ull)check->next_lsn, (ull)lsn - 1);
        memcpy(check->chain, head.previous_chain, CHAIN_SIZE);
    }
    if (check->journal_bytes == 0)
        memcpy(check->chain, head.previous_chain, CHAIN_SIZE);
    check->next_lsn = lsn + 1;
    check->journal_bytes += value.length;
    check_record(check, lsn, &head, &row);
    check_images(check, lsn, row.undo);
    for (uint32_t i = 0; i < row.dropped_count; i++) {
        struct place place;
        memcpy(&place, (const uint8_t *)row.dropped + i * sizeof place, sizeof place);
        check->kept_blocks += place.count;
        check_mark(check, place, "the journal (data that was replaced)");
    }
}

static void take_journal_places(struct check *check, struct span key, struct span value) {
    struct journal_head head;
    struct journal_row row;
    uint64_t lsn;
    if (!take_row(check, key, value, &head, &row, &lsn))
        return;
    for (uint32_t i = 0; i < row.place_count; i++) {
        struct place place;
        memcpy(&place, (const uint8_t *)row.places + i * sizeof place, sizeof place);
        if (!check_is_marked(check, place))
            found(check,
                  "record %llu of the journal wrote blocks that nobody keeps any more: a peer that lacks it "
                  "cannot be fed from here",
                  (ull)lsn);
    }
}

/* ---- Epochs ---- */

static void take_epoch(struct check *check, struct span key, struct span value) {
    struct epoch_row row;
    struct span begun;
    struct journal_row journal;
    struct journal_head head;

    if (key.length != 8 || value.length != sizeof row) {
        found(check, "a row of table \"epoch\" has a wrong length: a common point with the peer may not be found");
        return;
    }
    uint64_t epoch = be64_get(key.data);
    memcpy(&row, value.data, sizeof row);
    if (row.first <= check->last_first || row.first > check->position.lsn)
        found(check, "epoch %llu:%u begins at LSN %llu, which is out of order", (ull)EPOCH_COUNTER(epoch),
              EPOCH_NODE(epoch), (ull)row.first);
    check->last_first = row.first;
    check->last_epoch = epoch;
    if (row.first < check->position.first)
        return;
    struct key at = key_u64(row.first);
    if (get(check, TABLE_JOURNAL, &at, &begun) != 0 || journal_row_parse(begun, &journal) != 0)
        return; /* told already */
    memcpy(&head, begun.data, sizeof head);
    struct record record;
    bool fits = record_decode(journal.record.data, journal.record.length, &record, NULL) == 0 &&
                record.head.type == RECORD_EPOCH && record.head.epoch == epoch &&
                memcmp(head.previous_chain, row.chain, CHAIN_SIZE) == 0;
    record_release(&record);
    if (!fits)
        found(check,
              "epoch %llu:%u is not what the journal says at LSN %llu: a common point with the peer may not be "
              "found",
              (ull)EPOCH_COUNTER(epoch), EPOCH_NODE(epoch), (ull)row.first);
}

void check_journal(struct check *check) {
    check->next_lsn = check->position.first;
    walk(check, TABLE_JOURNAL, take_journal);
    if (check->has_position) {
        if (check->next_lsn != check->position.lsn + 1)
            found(check, "the journal ends at LSN %llu, the state stands at LSN %llu", (ull)check->next_lsn - 1,
                  (ull)check->position.lsn);
        else if (check->journal_bytes && memcmp(check->chain, check->position.chain, CHAIN_SIZE) != 0)
            found(check, "the state's chain is not that of the journal's last record: they are of two histories");
    }
    walk(check, TABLE_EPOCH, take_epoch);
    if (check->has_position && check->position.lsn && check->position.epoch != check->last_epoch)
        found(check, "the last record's epoch is missing in table \"epoch\"");
}

void check_journal_places(struct check *check) {
    check->second_walk = true;
    walk(check, TABLE_JOURNAL, take_journal_places);
}

/* ---- The tail ---- */

struct following {
    struct check *check;
    uint64_t lsn;
    uint8_t chain[CHAIN_SIZE];
};

static int take_tail(void *context, const struct tail_entry *entry) {
    struct following *following = context;
    struct record record;
    uint8_t chain[CHAIN_SIZE];
    const char *why;

    if (record_decode(entry->record, entry->record_length, &record, &why) != 0) {
        found(following->check, "the tail holds a malformed record after LSN %llu (%s): what follows it is lost",
              (ull)following->lsn, why);
        return 1;
    }
    record_chain(following->chain, entry->record, entry->record_length, chain);
    bool follows = record.head.lsn == following->lsn + 1 && memcmp(chain, record.head.chain, CHAIN_SIZE) == 0;
    bool whole = !entry->payload || record_check_payload(&record, entry->payload, entry->payload_length) == 0;
    record_release(&record);
    if (!follows || !whole) {
        found(following->check, "the tail's record after LSN %llu %s: what follows it is lost", (ull)following->lsn,
              follows ? "has damaged data" : "does not follow the state");
        return 1;
    }
    following->lsn++;
    memcpy(following->chain, chain, CHAIN_SIZE);
    return 0;
}

void check_tail(struct check *check, const struct checkpoint *checkpoint) {
    struct tail *tail = &check->store->tail;
    struct following following = {.check = check, .lsn = check->position.lsn};
    bool there = false;

    looking_at(check, "the tail");
    memcpy(following.chain, check->position.chain, CHAIN_SIZE);
    int rc = tail_open(tail, check->store->directory_fd, checkpoint->tail_size);
    for (unsigned i = 0; !rc && i < tail->count; i++)
        there |= tail->files[i].seq == checkpoint->tail_seq;
    if (!rc && there)
        rc = tail_replay(tail, checkpoint->tail_seq, check->position.lsn, check->position.chain, take_tail, &following);
    if (rc)
        found(check, "the tail cannot be read (%s): records after LSN %llu are lost, if there were any", strerror(-rc),
              (ull)following.lsn);
    else if (!there)
        found(check,
              "the tail's file that begins at LSN %llu is missing or unreadable: records after it are lost, if "
              "there were any",
              (ull)following.lsn);
}
