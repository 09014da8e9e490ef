#!/usr/bin/env python3
"""A writer that knows what was acknowledged, for tests that kill and cut the nodes under it.

usage: chaos-writer.py WHERE NAME SEED [PAUSE]

PAUSE: seconds between two operations (0).

WHERE is a file that holds the path of the mount that takes changes now, or "pause", or "stop". The writer works in the
folder NAME there, one operation after the other, and keeps the state that was acknowledged. When an operation fails,
the outcome of that one is open; as soon as there is a mount again, everything in the folder must be as acknowledged,
but for that one operation. Prints "violation: …" for whatever is not, and at the end "done OPERATIONS RESUMED".
"""
import errno
import hashlib
import os
import random
import sys
import time

where, name, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0
rng = random.Random(seed)
files = {}    # name -> content, as acknowledged
operations = resumed = violations = 0


def current():
    with open(where) as file:
        return file.read().strip()


def violation(text):
    global violations
    violations += 1
    if violations <= 20:
        print("violation:", name, text, flush=True)


def digest(content):
    return f"{len(content)} bytes {hashlib.sha256(content).hexdigest()[:12]}"


def read_all(folder):
    seen = {}
    for entry in os.listdir(folder):
        with open(os.path.join(folder, entry), "rb") as file:
            seen[entry] = file.read()
    return seen


def data():
    return rng.randbytes(rng.choice([10, 100, 4096, 5000, 20000, 150000]))


def whole(written, content):
    """A write whose second request is refused returns the length of the first: no error, but not acknowledged either."""
    if written != len(content):
        raise OSError(errno.EIO, f"{written} of {len(content)} bytes were written")


def plan():
    """The next operation: a function to do it, and the state after it."""
    after = dict(files)
    kind = rng.choice(["create", "create", "append", "overwrite", "rename", "unlink", "truncate", "replace"])
    existing = rng.choice(sorted(files)) if files else None
    if kind == "create" or existing is None or len(files) < 3:
        new, content = f"f{operations}", data()
        after[new] = content

        def do(folder):
            with open(os.path.join(folder, new), "wb", buffering=0) as file:
                whole(file.write(content), content)
                if rng.random() < 0.2:
                    os.fsync(file.fileno())
    elif kind == "append":
        content = data()
        after[existing] += content

        def do(folder):
            with open(os.path.join(folder, existing), "ab", buffering=0) as file:
                whole(file.write(content), content)
    elif kind == "overwrite":
        content = data()
        at = rng.randrange(len(files[existing]) + 1)
        old = files[existing]
        after[existing] = old[:at] + content + old[at + len(content):]

        def do(folder):
            descriptor = os.open(os.path.join(folder, existing), os.O_WRONLY)
            try:
                whole(os.pwrite(descriptor, content, at), content)
            finally:
                os.close(descriptor)
    elif kind == "rename":
        new = f"r{operations}"
        after[new] = after.pop(existing)

        def do(folder):
            os.rename(os.path.join(folder, existing), os.path.join(folder, new))
    elif kind == "replace":
        other = rng.choice(sorted(files))
        if other == existing:
            return plan()
        after[other] = after.pop(existing)

        def do(folder):
            os.rename(os.path.join(folder, existing), os.path.join(folder, other))
    elif kind == "unlink":
        del after[existing]

        def do(folder):
            os.unlink(os.path.join(folder, existing))
    else:
        size = rng.randrange(len(files[existing]) + 5000)
        after[existing] = files[existing][:size].ljust(size, b"\0")

        def do(folder):
            os.truncate(os.path.join(folder, existing), size)
    return do, after


def partly(before, after, seen):
    """An operation of several system calls may have stopped in the middle: its file may hold any part of the change."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    for key in before.keys() | after.keys() | seen.keys():
        if key not in changed and seen.get(key) != before.get(key):
            return False
    if len(changed) == 2:  # a rename: before or after, never both or none
        return False
    key = changed.pop()
    old, new, now = before.get(key), after.get(key), seen.get(key)
    if now is None:
        return False
    # A file that was being made: empty, or a part of its content.
    if old is None or new is None:
        return new is not None and new.startswith(now)
    # A write that begins within a page is two requests, if the kernel does not have that page: the first alone may have
    # been done. Then the file is as wanted up to somewhere, and from there on as it was.
    done = next((at for at in range(min(len(now), len(new))) if now[at] != new[at]), min(len(now), len(new)))
    return len(new) >= len(old) and now[done:] == old[done:]


def compare(seen, wanted, what):
    for key in sorted(seen.keys() | wanted.keys()):
        if seen.get(key) != wanted.get(key):
            have = digest(seen[key]) if key in seen else "missing"
            want = digest(wanted[key]) if key in wanted else "absent"
            violation(f"{what}: {key} is {have}, acknowledged was {want}")


def resume(before, after):
    """Waits for a mount; says which state it is in, and its path: WHERE may name another one, or none, a moment later."""
    global resumed
    while True:
        path = current()
        if path == "stop":
            return None, path
        if path == "pause":
            with open(f"{where}.{name}.rests", "w"):  # no operation is under way
                pass
            time.sleep(0.02)  # poll interval
            continue
        folder = os.path.join(path, name)
        try:
            seen = read_all(folder)
            probe = os.path.join(folder, "probe")
            with open(probe, "wb"):
                pass
            os.unlink(probe)
        except OSError:
            time.sleep(0.05)  # poll interval
            continue
        seen.pop("probe", None)
        resumed += 1
        if after is None:
            compare(seen, before, "after a pause")
            return before, path
        if seen != before and seen != after and not partly(before, after, seen):
            compare(seen, before, "after a failure")
        return seen, path


def main():
    global files, operations
    path = current()
    os.makedirs(os.path.join(path, name), exist_ok=True)
    while True:
        now = current()
        if now == "stop":
            break
        if now != path:
            state, path = resume(files, None)
            if state is None:
                break
            files = state
            continue
        do, after = plan()
        try:
            do(os.path.join(path, name))
            files = after
        except OSError as error:
            # A mount that it was told to leave may be gone by now; what is behind the path then has no such folder.
            if error.errno in (errno.ENOENT, errno.EEXIST, errno.EBADF) and current() == path:
                violation(f"an operation that must work failed: {error}")
            state, path = resume(files, after)
            if state is None:
                break
            files = state
        operations += 1
        time.sleep(pause)
        if len(files) > 40:
            for key in sorted(files)[:20]:
                try:
                    os.unlink(os.path.join(path, name, key))
                    del files[key]
                except OSError:
                    gone = {other: files[other] for other in files if other != key}
                    state, path = resume(files, gone)
                    if state is None:
                        print("done", operations, resumed, flush=True)
                        return
                    files = state
                    break
    print("done", operations, resumed, flush=True)


main()
sys.exit(1 if violations else 0)
