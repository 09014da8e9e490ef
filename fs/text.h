/* Bytes as text, for people and for JSON. Pure functions; any thread. */
#ifndef BATON_FS_TEXT_H
#define BATON_FS_TEXT_H

#include "fs/base.h"

/* Bytes as UTF-8: a backslash is doubled; control characters and what is not UTF-8 become \xHH.
 * Cut to fit. Returns the length. */
size_t text_escape(const void *bytes, size_t length, char *text, size_t room);
/* In text that was cut somewhere, or came from elsewhere: what is not UTF-8 becomes '?'. JSON takes nothing else. */
void text_mend(char *text);

#endif
