/* Segments: files of blocks, which several stores of one disk may have (fs/segment.h). */
#include "tests/simulator/sim.h"

struct sim_segment *space_find(const struct sim_space *space, uint32_t number) {
    for (uint32_t i = 0; i < space->count; i++)
        if (space->list[i].number == number)
            return &space->list[i];
    return NULL;
}

struct sim_segment *space_add(struct sim_space *space, uint32_t number, struct sim_file *file) {
    if (space->count == space->room) {
        uint32_t room = MAX(8u, space->room * 2);
        struct sim_segment *larger = sim_alloc(room * sizeof *larger);
        if (space->count)
            memcpy(larger, space->list, space->count * sizeof *larger);
        space->list = larger;
        space->room = room;
    }
    struct sim_segment *segment = &space->list[space->count++];
    *segment = (struct sim_segment){.number = number, .file = file ? file : sim_alloc(sizeof *file)};
    return segment;
}

struct place space_take(struct sim_space *space, uint32_t most) {
    struct sim_segment *segment = space_find(space, space->current);
    if (!segment || segment->head == SIM_SEGMENT_BLOCKS) {
        segment = space_add(space, space->count ? space->list[space->count - 1].number + 1 : 1, NULL);
        space->current = segment->number;
    }
    struct place place = {segment->number, segment->head, MIN(most, SIM_SEGMENT_BLOCKS - segment->head)};
    segment->head += place.count;
    return place;
}

void space_copy(struct sim_space *to, const struct sim_space *from) {
    *to = *from;
    to->list = sim_alloc((from->room + 1) * sizeof *to->list);
    if (from->count)
        memcpy(to->list, from->list, from->count * sizeof *to->list);
}

void space_own(struct sim_space *space) {
    for (uint32_t i = 0; i < space->count; i++) {
        struct sim_file *file = sim_alloc(sizeof *file);
        *file = *space->list[i].file;
        space->list[i].file = file;
    }
}

struct sim_block **space_block(const struct sim_space *space, struct place place) {
    struct sim_segment *segment = space_find(space, place.segment);
    return segment && place.position < SIM_SEGMENT_BLOCKS ? &segment->file->blocks[place.position] : NULL;
}

void space_write(const struct sim_space *space, struct place place, const void *bytes, size_t length, bool synced) {
    struct sim_segment *segment = space_find(space, place.segment);
    const uint8_t *at = bytes;
    if (!segment || place.position + place.count > SIM_SEGMENT_BLOCKS)
        sim_fail("blocks are written where there is no segment");
    for (uint32_t i = 0; i < place.count; i++) {
        size_t take = MIN(length, (size_t)BATON_BLOCK), used = take;
        while (used > 0 && at[used - 1] == 0)
            used--;
        struct sim_block *block = sim_alloc(sizeof *block + used);
        block->length = (uint32_t)used;
        if (used)
            memcpy(block->bytes, at, used);
        segment->file->blocks[place.position + i] = block;
        segment->file->synced[place.position + i] = synced;
        at += take;
        length -= take;
    }
}

bool space_holds(const struct sim_space *space, struct place place, uint64_t checksum) {
    struct sim_block **block = space_block(space, place);
    return block && *block && block_checksum_part((*block)->bytes, (*block)->length) == checksum;
}
