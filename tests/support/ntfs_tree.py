#!/usr/bin/env python3
"""Makes files and directories in an NTFS volume that lies in a file, without mounting it.

    ntfs_tree.py IMAGE < paths    one path in each line; one that ends with '/' is a directory
    ntfs_tree.py IMAGE scatter    before that: every other free cluster becomes a used one, so that whatever grows is
                                  in many pieces, the table of all files included

Directories must come before what is in them. The work is done by the library of ntfs-3g, so what the tests read was
not written by the hand that wrote the reader.
"""
import ctypes
import stat
import sys


def library():
    for name in "libntfs-3g.so.89", "libntfs-3g.so.883", "libntfs-3g.so":
        try:
            lib = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for function, result, arguments in (
            ("ntfs_mount", pointer, (text, ctypes.c_ulong)),
            ("ntfs_umount", ctypes.c_int, (pointer, ctypes.c_int)),
            ("ntfs_pathname_to_inode", pointer, (pointer, pointer, text)),
            ("ntfs_create", pointer, (pointer, ctypes.c_uint32, pointer, ctypes.c_uint8, ctypes.c_uint32)),
            ("ntfs_inode_close", ctypes.c_int, (pointer,)),
        ):
            call = getattr(lib, function)
            call.restype, call.argtypes = result, arguments
        return lib
    raise SystemExit("libntfs-3g is not installed (Debian: ntfs-3g)")


def must(result, what):
    if not result:
        raise SystemExit(f"{what}: errno {ctypes.get_errno()}")
    return result


def scatter(image):
    with open(image, "r+b") as file:
        boot = file.read(512)
        cluster = int.from_bytes(boot[0x0B:0x0D], "little") * boot[0x0D]
        table = int.from_bytes(boot[0x30:0x38], "little") * cluster
        file.seek(table + 6 * 1024)  # $Bitmap: a bit for each cluster, in one run on a new volume
        record = file.read(1024)
        at = int.from_bytes(record[0x14:0x16], "little")
        while record[at] != 0x80:
            at += int.from_bytes(record[at + 4 : at + 8], "little")
        size = int.from_bytes(record[at + 0x30 : at + 0x38], "little")
        run = at + int.from_bytes(record[at + 0x20 : at + 0x22], "little")
        lengths, places = record[run] & 15, record[run] >> 4
        place = int.from_bytes(record[run + 1 + lengths : run + 1 + lengths + places], "little")
        file.seek(place * cluster)
        bits = file.read(size)
        file.seek(place * cluster)
        file.write(bytes(byte | 0xAA for byte in bits))


def main():
    if sys.argv[2:] == ["scatter"]:
        return scatter(sys.argv[1])
    lib = library()
    volume = must(lib.ntfs_mount(sys.argv[1].encode(), 0), "ntfs_mount")
    # One directory is open at a time: what is made in it is seen by others when it is closed.
    current, directory = None, None
    for line in sys.stdin:
        path = line.rstrip("\n")
        kind = stat.S_IFDIR if path.endswith("/") else stat.S_IFREG
        parent, _, name = path.rstrip("/").rpartition("/")
        if parent != current:
            if directory:
                lib.ntfs_inode_close(directory)
            found = lib.ntfs_pathname_to_inode(volume, None, ("/" + parent).encode())
            current, directory = parent, must(found, f"no directory {parent}")
        units = name.encode("utf-16-le")
        made = lib.ntfs_create(directory, 0, units, len(units) // 2, kind)
        lib.ntfs_inode_close(must(made, f"cannot make {path}"))
    if directory:
        lib.ntfs_inode_close(directory)
    if lib.ntfs_umount(volume, 0) != 0:
        raise SystemExit("ntfs_umount failed")


main()
