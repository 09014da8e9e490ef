/* The control socket: STORE/control, a Unix stream socket, root only. Tools ask the daemon here while the store is in
 * use. A request is one line of JSON, {"command": "status", …}; the answer is one line or, for streams (journal list,
 * follow), many; the last has "end": true; an error is {"error": "sentence", "errno": N}.
 * Each connection has a thread; `status` never takes a lock that can be held long.
 */
#ifndef BATON_FS_CONTROL_H
#define BATON_FS_CONTROL_H

#include "fs/base.h"

#include <jansson.h>

struct volume;
struct control;

struct control_reply {
    int fd;
    bool failed; /* the client has gone */
};
/* Sends one line. Steals the reference. Returns -EPIPE if the client has gone. */
int control_send(struct control_reply *reply, json_t *line);
int control_error(struct control_reply *reply, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Bytes instead of a line, where both sides have agreed on them (fs/tree_wire.h). 0 or a negative errno. */
int control_send_bytes(int fd, const void *bytes, size_t length);
int control_receive_bytes(int fd, void *bytes, size_t length, int timeout_ms); /* -ETIMEDOUT, -EPIPE at the end */

/* Waits up to `timeout_ms` for the client to go away or the daemon to stop. True if so: end the stream. */
bool control_gone(struct control_reply *reply, int timeout_ms);

/* A handler ends its answer with a line that has "end": true, or with control_error(). No locks are held; send with
 * none held either, a client may be slow. */
typedef void control_handler(struct volume *volume, const json_t *request, struct control_reply *reply);
/* Before control_start. */
void control_register(const char *command, control_handler *handler);
void control_status(void);  /* registers "status" (fs/control_status.c) */
void control_journal(void); /* registers "journal" (fs/control_journal.c) */
void control_history(void); /* registers "history" (fs/control_history.c) */
int control_start(struct volume *volume, struct control **control, char *why, size_t why_room);
/* For a daemon without a store: DIRECTORY/control, and handlers get this `volume`. The directory is locked by the caller. */
int control_start_in(const char *directory, struct volume *volume, struct control **control, char *why, size_t why_room);
void control_stop(struct control *control);

/* The client's side (tools). Connects to the daemon of the store, -ECONNREFUSED/-ENOENT if none runs. */
int control_connect(const char *store_path, int *fd);
int control_request(int fd, const json_t *request);
int control_receive(int fd, json_t **line, int timeout_ms); /* -ETIMEDOUT, -EPIPE at the end, -EBADMSG */

#endif
