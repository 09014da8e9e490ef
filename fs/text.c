#include "fs/text.h"

#include <stdio.h>

/* Length of the UTF-8 character at the front, 0 if there is none (also for what is forbidden: surrogates, longer than
 * needed, beyond U+10FFFF). */
static unsigned utf8_length(const uint8_t *at, size_t left) {
    unsigned length = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                      : at[0] >= 0xf0 && at[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (unsigned i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) ||
        (at[0] == 0xf4 && at[1] > 0x8f) || (at[0] == 0xc2 && at[1] < 0xa0))
        return 0;
    return length;
}

size_t text_escape(const void *bytes, size_t length, char *text, size_t room) {
    const uint8_t *at = bytes, *end = at + length;
    size_t used = 0;

    while (at < end && used + 5 <= room) {
        unsigned n = utf8_length(at, (size_t)(end - at));
        if (*at == '\\') {
            text[used++] = '\\';
            text[used++] = '\\';
            at++;
        } else if (n == 0 || *at < 0x20 || *at == 0x7f) {
            used += (size_t)snprintf(text + used, room - used, "\\x%02x", *at);
            at++;
        } else {
            memcpy(text + used, at, n);
            used += n;
            at += n;
        }
    }
    text[used] = '\0';
    return used;
}

void text_mend(char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        unsigned length = utf8_length((const uint8_t *)text, left);
        if (length == 0)
            *text = '?';
        text += MAX(length, 1);
        left -= MAX(length, 1);
    }
}
