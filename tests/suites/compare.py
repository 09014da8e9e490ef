#!/usr/bin/env python3
"""compare.py A B — compares two trees in content and in all metadata that Baton replicates: type, mode, owner, size,
links, inode number, device, access, modification and change time to the nanosecond, extended attributes (ACLs too),
symlink targets, and the order of directory entries. Prints what differs (at most 50 lines); exit status 1 if anything
does. Access times are left out with --no-atime (reading updates them)."""
import hashlib
import os
import stat
import sys

LIMIT = 50


def content(path):
    digest = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def attributes(path):
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        found[name] = os.getxattr(path, name, follow_symlinks=False)
    return found


def told(path, atime):
    status = os.lstat(path)
    facts = {
        "mode": oct(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "size": status.st_size,
        "nlink": status.st_nlink,
        "ino": status.st_ino,
        "blocks": status.st_blocks,
        "mtime": status.st_mtime_ns,
        "ctime": status.st_ctime_ns,
        "xattrs": attributes(path),
    }
    if atime:
        facts["atime"] = status.st_atime_ns
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        facts["rdev"] = status.st_rdev
    if stat.S_ISLNK(status.st_mode):
        facts["target"] = os.readlink(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            facts["entries"] = [(entry.name, entry.inode()) for entry in entries]
    return facts, status


class Comparison:
    def __init__(self, atime):
        self.atime = atime
        self.read = set()  # inodes with other names
        self.differences = 0
        self.seen = 0

    def say(self, path, what):
        self.differences += 1
        if self.differences <= LIMIT:
            print(f"{path or '.'}: {what}")

    def one(self, a, b, path):
        self.seen += 1
        here, there = os.path.join(a, path), os.path.join(b, path)
        try:
            facts, status = told(here, self.atime)
        except OSError as error:
            self.say(path, f"first: {error.strerror}")
            return
        try:
            other, _ = told(there, self.atime)
        except OSError as error:
            self.say(path, f"second: {error.strerror}")
            return
        if status.st_ino in self.read:
            facts.pop("atime", None)  # compared under its other name, and then changed by reading it
        elif status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self.read.add(status.st_ino)
        for name in facts:
            if facts[name] != other.get(name):
                self.say(path, f"{name}: {facts[name]!r} and {other.get(name)!r}"[:400])
        if stat.S_ISREG(status.st_mode):
            try:
                if content(here) != content(there):
                    self.say(path, "content differs")
            except OSError as error:
                self.say(path, f"reading: {error.strerror} ({error.filename})")
        if stat.S_ISDIR(status.st_mode):
            for name, _ in facts["entries"]:
                self.one(a, b, os.path.join(path, name))


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--no-atime"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    sys.setrecursionlimit(10000)
    comparison = Comparison("--no-atime" not in sys.argv)
    comparison.one(arguments[0], arguments[1], "")
    print(f"{comparison.seen} files compared, {comparison.differences} differences")
    sys.exit(1 if comparison.differences else 0)


main()
