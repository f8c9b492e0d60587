"""Looks from the host for texts in sandboxes: in the memory, environment and arguments of every process
below a given one that is in another process namespace, and in the files that it can change.

search_sandbox.py PID DIRECTORY..., with one text a line on standard input. The output is JSON: for each
text, the places that hold it. Everything that is looked at is listed, so that nothing is overlooked in silence."""

import json
import os
import stat
import sys

PAGE = os.sysconf("SC_PAGE_SIZE")
PIECE = 1 << 24
THERE = bytes(byte >> 6 != 0 for byte in range(256))


def descendants(root):
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = set(), {root}
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in more} - found
    own = os.readlink("/proc/self/ns/pid")
    return sorted(pid for pid in found if namespace(pid) not in (None, own))


def namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except FileNotFoundError:
        return None


def present(pagemap, start, end):
    """The ranges of memory that are there: agents reserve far more than they use."""
    pagemap.seek(start // PAGE * 8)
    # The highest bits of an entry of eight bytes say that the page is present or swapped.
    marks = pagemap.read((end - start) // PAGE * 8)[7::8].translate(THERE)
    first = marks.find(1)
    while first >= 0:
        last = marks.find(0, first)
        last = len(marks) if last < 0 else last
        yield start + first * PAGE, start + last * PAGE
        first = marks.find(1, last)


def memory(pid):
    """Pieces of its memory, each with the end of the one before."""
    with (
        open(f"/proc/{pid}/maps") as maps,
        open(f"/proc/{pid}/mem", "rb", 0) as mem,
        open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap,
        open(f"/proc/{pid}/smaps") as smaps,
    ):
        used = [int(line.split()[1]) for line in smaps if line.startswith("Rss:")]
        for line, resident in zip(maps, used):
            addresses, rights, *_ = line.split()
            if not resident or "r" not in rights or "[vvar" in line or "[vsyscall" in line:
                continue
            start, end = (int(part, 16) for part in addresses.split("-"))
            for first, last in present(pagemap, start, end):
                while first < last:
                    try:
                        mem.seek(first)
                        piece = mem.read(min(PIECE, last - first))
                    except OSError:
                        break
                    if not piece:
                        break
                    yield piece
                    # Whatever lies across two pieces is in the next one whole.
                    first += len(piece) if len(piece) < PIECE else len(piece) - PAGE


def files(root):
    """What is in a file system; others that are mounted in it are the host's, for reading only."""
    device = os.stat(root).st_dev
    folders = [root]
    while folders:
        try:
            entries = sorted(os.scandir(folders.pop()), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
                if found.st_dev == device and stat.S_ISDIR(found.st_mode):
                    folders.append(entry.path)
                elif found.st_dev == device and stat.S_ISREG(found.st_mode):
                    with open(entry.path, "rb") as file:
                        yield entry.path, file.read() + entry.path.encode(errors="surrogateescape")
            except FileNotFoundError:
                # Written and removed while we look.
                continue


def contents(root, directories):
    mounts = set()
    for pid in descendants(root):
        try:
            for name in ("environ", "cmdline"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    yield f"{name} of {pid}", file.read()
            for piece in memory(pid):
                yield f"memory of {pid}", piece
            seen = os.readlink(f"/proc/{pid}/ns/mnt")
        except (FileNotFoundError, ProcessLookupError):
            # Commands that it runs come and go.
            continue
        if seen in mounts:
            continue
        mounts.add(seen)
        for directory in directories:
            yield from files(f"/proc/{pid}/root{directory}")


def main():
    texts = sys.stdin.read().splitlines()
    found, looked_at = {text: set() for text in texts}, set()
    for place, content in contents(int(sys.argv[1]), sys.argv[2:]):
        looked_at.add(place)
        for text in texts:
            if text.encode() in content:
                found[text].add(place)
    found = {text: sorted(places) for text, places in found.items()}
    print(json.dumps({"found": found, "looked_at": sorted(looked_at)}))


main()
