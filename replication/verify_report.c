/* What a comparison found, with names, for tools. */
#include "replication/verify_internal.h"

#include "fs/paths.h"

#include <inttypes.h>
#include <stdio.h>

#define PATH_ROOM 4400u

const char *verify_outcome_name(enum verify_outcome outcome) {
    static const char *const names[] = {"none", "equal", "different", "failed", "stopped"};
    return names[outcome <= VERIFY_STOPPED ? outcome : VERIFY_NONE];
}

static const char *node_named(const struct replicator *r, uint16_t number) {
    for (unsigned i = 0; i < r->count; i++)
        if (r->config->nodes[i].number == number)
            return r->config->nodes[i].name;
    return "?";
}

json_t *verify_result_json(const struct replicator *r, const struct verify_result *result) {
    json_t *shown = json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "peer", node_named(r, result->node),
                              "outcome", verify_outcome_name(result->outcome), "paths_only", (int)result->paths, "begun",
                              (json_int_t)result->begun, "ended", (json_int_t)result->ended, "first_lsn",
                              (json_int_t)result->first_lsn, "lsn", (json_int_t)result->lsn, "rows",
                              (json_int_t)result->rows, "bytes", (json_int_t)result->bytes, "differences",
                              (json_int_t)result->differences);
    if (result->why[0])
        json_object_set_new(shown, "why", json_string(result->why));
    return shown;
}

/* ---- Names ----------------------------------------------------------------------------------------------------------- */

static bool pause_search(void *verifying) {
    verify_pace(verifying, 256u << 10);
    return !verify_goes_on(verifying);
}

/* What the other node's rows say of files that this one does not have. */
static int tell_all(struct verifying *v, struct paths *paths) {
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < v->result.differences; i++) {
        const struct difference *d = &v->found[i];
        struct span name = {d->entry.bytes + 8, (uint32_t)d->entry.length - 8};
        if (d->there && d->entry.length > 8)
            rc = paths_tell(paths, d->there, d->ino, name);
    }
    return rc;
}

static int search(struct verifying *v, struct paths *paths) {
    size_t count = (size_t)v->result.differences;
    uint64_t *inos = calloc(count, sizeof *inos), *datas = calloc(count, sizeof *datas);
    int rc = inos && datas ? tell_all(v, paths) : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        inos[i] = v->found[i].ino;
        datas[i] = v->found[i].table == TABLE_EXTENT ? v->found[i].data : 0;
    }
    if (rc == 0)
        rc = paths_search(paths, inos, datas, count, pause_search, v);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct difference *d = &v->found[i];
        if (d->table == TABLE_EXTENT && d->ino == 0)
            d->ino = paths_owner(paths, d->data);
        for (size_t j = 0; d->table == TABLE_EXTENT && d->ino == 0 && j < count; j++)
            if (v->found[j].table == TABLE_INODE && v->found[j].data == d->data)
                d->ino = v->found[j].ino;
    }
    free(inos);
    free(datas);
    return rc;
}

static json_t *paths_of(struct paths *paths, const struct difference *d) {
    char path[PATH_ROOM];
    json_t *list = json_array();
    struct span name = {d->entry.bytes + 8, (uint32_t)d->entry.length - 8};
    if (d->entry.length > 8) {
        paths_entry(paths, d->ino, name, path, sizeof path);
        json_array_append_new(list, json_string(path));
        return list;
    }
    for (unsigned i = 0; d->ino && paths_text(paths, d->ino, i, path, sizeof path); i++)
        json_array_append_new(list, json_string(path));
    return list;
}

static json_t *describe(struct paths *paths, const struct difference *d) {
    static const char *const where[] = {"here", "there", "both"};
    json_t *shown = json_pack("{s:s, s:s, s:I, s:s, s:o}", "table", table_names[d->table], "where", where[d->differs], "inode",
                              (json_int_t)d->ino, "text", d->text, "paths", paths ? paths_of(paths, d) : json_array());
    if (d->table == TABLE_EXTENT)
        json_object_update_new(shown, json_pack("{s:I, s:I, s:I}", "data", (json_int_t)d->data, "first", (json_int_t)d->first,
                                                "blocks", (json_int_t)d->count));
    return shown;
}

json_t *verify_report(struct verifying *v) {
    json_t *report = verify_result_json(v->r, &v->result), *list = json_array();
    struct paths *paths = v->past && v->result.differences ? paths_create(v->past) : NULL;
    int rc = paths ? search(v, paths) : 0;
    if (rc && rc != -ECANCELED)
        log_warning("not all names of what differs could be found: %s", strerror(-rc));
    for (uint64_t i = 0; i < v->result.differences; i++)
        json_array_append_new(list, describe(paths, &v->found[i]));
    json_object_set_new(report, "found", list);
    json_object_set_new(report, "found_all", json_boolean(v->result.differences < VERIFY_FOUND_MAX));
    paths_free(paths);
    return report;
}
