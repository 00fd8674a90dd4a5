#!/usr/bin/env python3
"""Makes disk image files that a daemon must refuse, and good ones next to them.

    hostile_images.py images DIR    the files, the canaries that some of them name, and DIR/cases.json
    hostile_images.py seeds DIR     the same headers as inputs of tests/fuzz/image_inspect.cpp

Everything is computed here, byte by byte from the specifications, and is the same in every run: there is no program
that would make most of these files, and nothing random in them. A file is built as a good one, which is among the
cases, and then changed in one thing, so that each refusal has one cause.

cases.json is a list; each case has
    file      its name in DIR
    format    the format that the caller gives, or null
    refused   {"code", "field", "words"} - words are a part of the sentence - or null when it must be imported
    sha256    of the disk inside, when it must be imported; "size": its bytes
    canary    the file in DIR that a reader without confinement opens because this one names it, or null
    reader    the driver of qemu that is asked to show it
"""
import hashlib
import json
import os
import struct
import sys
import zlib

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MAX_DISK = 4 * TIB  # the daemon's limit of a disk
ALL_ONES = (1 << 64) - 1


class Bytes:
    """A sparse file: bytes at places, zeros elsewhere."""

    def __init__(self, size=0):
        self.size = size
        self.parts = []  # (offset, bytes); a later one covers earlier ones

    def put(self, offset, data):
        data = bytes(data)
        if data:
            self.parts.append((offset, data))
            self.size = max(self.size, offset + len(data))
        return self

    def be(self, offset, width, value):
        return self.put(offset, value.to_bytes(width, "big"))

    def le(self, offset, width, value):
        return self.put(offset, value.to_bytes(width, "little"))

    def get(self, offset, length):
        result = bytearray(length)
        for start, data in self.parts:
            low, high = max(start, offset), min(start + len(data), offset + length)
            if low < high:
                result[low - offset : high - offset] = data[low - start : high - start]
        return bytes(result)

    def cut(self, size):
        other = Bytes(size)
        other.parts = [(start, data[: size - start]) for start, data in self.parts if start < size]
        return other

    def write(self, path):
        with open(path, "wb") as file:
            for offset, data in self.parts:
                for at in range(0, len(data), 64 * KIB):
                    piece = data[at : at + 64 * KIB]
                    # A part that covers another one has to be written whole.
                    if len(data) <= 64 * KIB or piece.strip(b"\0"):
                        file.seek(offset + at)
                        file.write(piece)
            file.truncate(self.size)

    def seed(self, selector):
        """As tests/fuzz/image_inspect.cpp takes it: selector, size, then offset, length and bytes of each part."""
        result = bytearray([selector]) + struct.pack("<Q", self.size)
        for offset, data in self.parts:
            # Data need not be there to be found; headers and tables are short, or begin with what matters.
            piece = data if len(data) <= 4 * KIB else data[:256]
            result += struct.pack("<Q", offset)[:6] + struct.pack("<H", len(piece)) + piece
        return bytes(result)


def pattern(length, seed):
    """Data that does not compress to nothing and does not look like any header."""
    line = hashlib.sha256(str(seed).encode()).digest()
    return (line * (length // len(line) + 1))[:length]


# --- qcow2 (QEMU docs/interop/qcow2)

QCOW2_DISK = 1 * MIB


def qcow2(version=3, cluster_bits=16, size=QCOW2_DISK, extensions=b"", backing=b"", compressed=False, entries=None):
    """Header, refcount table and block, L1 and L2 table in clusters 0 to 4; the first and the last cluster of the disk
    hold data, in clusters 5 and 6. Returns the file and the content of its disk (of a small one)."""
    cluster = 1 << cluster_bits
    image = Bytes(7 * cluster)
    span = cluster * (cluster // 8)
    l1_entries = max(1, -(-size // span))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, cluster_bits, size, 0, l1_entries, 3 * cluster, 1 * cluster, 1, 0, 0
    )
    if version == 3:
        header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    image.put(0, header)
    at = len(header)
    image.put(at, extensions + bytes(8))  # the end of the extensions
    if backing:
        place = at + len(extensions) + 8
        image.put(place, backing).be(8, 8, place).be(16, 4, len(backing))
    image.be(cluster, 8, 2 * cluster)
    for i in range(7):
        image.be(2 * cluster + 2 * i, 2, 1)
    image.be(3 * cluster, 8, 4 * cluster | 1 << 63)
    last = size // cluster - 1
    first_data, last_data = pattern(cluster, "first"), pattern(cluster, "last")
    if compressed:
        packed = zlib.compressobj(wbits=-12)
        stream = packed.compress(first_data) + packed.flush()
        sectors = -(-len(stream) // 512) - 1
        image.put(5 * cluster, stream).be(4 * cluster, 8, 1 << 62 | sectors << (62 - (cluster_bits - 8)) | 5 * cluster)
    else:
        image.put(5 * cluster, first_data).be(4 * cluster, 8, 5 * cluster | 1 << 63)
    if last < cluster // 8:
        image.put(6 * cluster, last_data).be(4 * cluster + 8 * last, 8, 6 * cluster | 1 << 63)
    for place, value in entries or ():
        image.be(place, 8, value)
    disk = None
    if size <= 16 * MIB:
        disk = bytearray(size)
        disk[:cluster] = first_data
        disk[last * cluster :] = last_data
    return image, disk


def qcow2_extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def qcow2_cases(case, canary, missing):
    cluster = 64 * KIB
    for version in (2, 3):
        case(f"good-v{version}.qcow2", *qcow2(version))
        case(f"backing-v{version}.qcow2", qcow2(version, backing=canary.encode())[0], "backing file", canary=canary)
        name = b'json:{"driver":"raw","file":{"driver":"file","filename":"' + canary.encode() + b'"}}'
        case(f"backing-json-v{version}.qcow2", qcow2(version, backing=name)[0], "backing file", canary=canary)
    for bits in (9, 12, 21):
        image, disk = qcow2(3, bits, size=8 * MIB if bits == 21 else 32 * KIB if bits == 9 else QCOW2_DISK)
        case(f"good-clusters-{bits}.qcow2", image, disk)
    case("good-compressed.qcow2", *qcow2(compressed=True))
    case("backing-nbd.qcow2", qcow2(backing=b"nbd+unix:///?socket=/nonexistent")[0], "backing file")
    case("backing-beyond.qcow2", qcow2()[0].be(8, 8, 1 << 62).be(16, 4, 1000), "backing file")
    case("backing-long.qcow2", qcow2()[0].be(8, 8, 512).be(16, 4, 0xFFFFFFFF), "backing file")

    data_file = qcow2_extension(0x44415441, canary.encode())
    # A reader that honours the name reads the disk from the canary.
    external = qcow2(extensions=data_file)[0].be(72, 8, 4).be(88, 8, 2)
    case("data-file.qcow2", external, "another file", canary=canary)
    case("data-file-name-only.qcow2", qcow2(extensions=data_file)[0], "external data file")
    case("data-file-behind-others.qcow2", qcow2(extensions=qcow2_extension(0x6803F857, bytes(48)) + data_file)[0],
         "external data file")
    case("data-file-bit-only.qcow2", qcow2()[0].be(72, 8, 4), "another file")

    for version in (2, 3):
        for method in (1, 2, 99):
            case(f"crypt-{method}-v{version}.qcow2", qcow2(version)[0].be(32, 4, method), "encrypted")
    case("crypt-extension.qcow2", qcow2(extensions=qcow2_extension(0x0537BE77, bytes(16)))[0], "encrypted")

    # Its reference counts are out of date, which a reader of data need not mind.
    image, disk = qcow2()
    case("good-dirty.qcow2", image.be(72, 8, 1), disk)
    case("corrupt.qcow2", qcow2()[0].be(72, 8, 2), "marked as corrupt")
    case("dirty-corrupt.qcow2", qcow2()[0].be(72, 8, 3), "marked as corrupt")
    for bit in (5, 31, 63):
        case(f"feature-{bit}.qcow2", qcow2()[0].be(72, 8, 1 << bit), "unknown")
    case("compression-type.qcow2", qcow2()[0].be(72, 8, 8).be(100, 4, 112).be(104, 1, 7), "compression")
    for version in (0, 1, 4, 0xFFFFFFFF):
        words = "qcow (version 1)" if version == 1 else "version"
        case(f"version-{version}.qcow2", qcow2()[0].be(4, 4, version), words)

    for name, offset, width, value, words in (
        ("cluster-bits-0", 20, 4, 0, "2^0"), ("cluster-bits-8", 20, 4, 8, "2^8"), ("cluster-bits-22", 20, 4, 22, "2^22"),
        ("cluster-bits-31", 20, 4, 31, "2^31"), ("cluster-bits-63", 20, 4, 63, "2^63"),
        ("cluster-bits-all", 20, 4, 0xFFFFFFFF, "damaged"),
        ("size-0", 24, 8, 0, "no bytes"), ("size-1", 24, 8, 1, "sectors"), ("size-limit", 24, 8, MAX_DISK + 512, "limit"),
        ("size-all", 24, 8, ALL_ONES, "limit"), ("size-sign", 24, 8, 1 << 63, "limit"),
        ("l1-none", 36, 4, 0, "L1 table"), ("l1-all", 36, 4, 0xFFFFFFFF, "L1 table"),
        ("l1-overflow", 36, 4, 1 << 29, "L1 table"), ("l1-at-header", 40, 8, 0, "L1 table"),
        ("l1-uneven", 40, 8, 3 * cluster + 1, "L1 table"), ("l1-beyond", 40, 8, 1 << 50, "L1 table"),
        ("l1-wraps", 40, 8, ALL_ONES - cluster + 1, "L1 table"),
        ("refcounts-none", 56, 4, 0, "refcount table"), ("refcounts-all", 56, 4, 0xFFFFFFFF, "refcount table"),
        ("refcounts-beyond", 48, 8, 1 << 50, "refcount table"), ("refcounts-uneven", 48, 8, 12345, "refcount table"),
        ("snapshots-all", 60, 4, 0xFFFFFFFF, "internal snapshots"), ("snapshots-many", 60, 4, 65537, "internal snapshots"),
        ("snapshots-nowhere", 60, 4, 65536, "snapshot table"),
        ("refcount-order", 96, 4, 7, "reference counts"), ("refcount-order-all", 96, 4, 0xFFFFFFFF, "reference counts"),
        ("header-0", 100, 4, 0, "header"), ("header-72", 100, 4, 72, "header"), ("header-105", 100, 4, 105, "header"),
        ("header-long", 100, 4, cluster + 8, "header"), ("header-all", 100, 4, 0xFFFFFFFF, "header"),
    ):
        case(f"{name}.qcow2", qcow2()[0].be(offset, width, value), words)
    # 65536 snapshots with names and state of 64 KiB each, if one believed the table.
    bomb = struct.pack(">QIHHIIQII", 3 * cluster, 1, 0xFFFF, 0xFFFF, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    image = qcow2()[0].be(60, 4, 65536).be(64, 8, 7 * cluster)
    case("snapshots-bomb.qcow2", image.put(7 * cluster, bomb * 65536), "snapshot")
    case("snapshots-beyond.qcow2", qcow2()[0].be(60, 4, 1).be(64, 8, 1 << 50), "snapshot table")

    for name, data in (
        ("endless", struct.pack(">II", 0x12345678, 0xFFFFFFFF)), ("just-too-long", struct.pack(">II", 0x12345678, cluster - 8)),
    ):
        case(f"extension-{name}.qcow2", qcow2(extensions=data)[0], "header extension")
    image, disk = qcow2(extensions=qcow2_extension(0x12345678, b"unknown, to be ignored"))
    case("good-extension.qcow2", image, disk)

    l2 = 4 * cluster
    for name, value, words in (
        ("cluster-beyond", 1 << 40 | 1 << 63, "truncated"), ("cluster-uneven", 512 | 1 << 63, "byte 512"),
        ("cluster-at-the-end", 7 * cluster | 1 << 63, "truncated"),
        ("cluster-far", 0x00FFFFFFFFFF0000, "truncated"),
        ("compressed-beyond", 1 << 62 | 1 << 40, "truncated"), ("compressed-far", 1 << 62 | (1 << 54) - 1, "truncated"),
        ("compressed-long", 1 << 62 | 255 << 54 | 7 * cluster - 512, "truncated"),
    ):
        case(f"{name}.qcow2", qcow2(entries=[(l2, value)])[0], words)
    # The stream is inside the file but is none: only its reader can tell.
    case("compressed-noise.qcow2", qcow2(entries=[(l2, 1 << 62 | 7 << 54 | 5 * cluster)])[0], "image cannot be read")
    case("compressed-header.qcow2", qcow2(entries=[(l2, 1 << 62)])[0], "image cannot be read")
    for name, value, words in (
        ("l2-beyond", 1 << 40 | 1 << 63, "an L2 table"), ("l2-uneven", 1024 | 1 << 63, "byte 1024"),
        ("l2-far", 0x00FFFFFFFFFF0000, "an L2 table"),
    ):
        case(f"{name}.qcow2", qcow2(entries=[(3 * cluster, value)])[0], words)
    # The L1 table as its own L2 table: its entry is then that of a cluster, the L1 table again.
    image, _ = qcow2(entries=[(3 * cluster, 3 * cluster | 1 << 63)])
    case("good-l2-is-l1.qcow2", image, image.get(3 * cluster, cluster) + bytes(QCOW2_DISK - cluster))
    # One L2 table for all of a disk of 4 TiB in clusters of 4 KiB: a file of 16 MiB that takes a thousand million entries.
    image, _ = qcow2(3, 12, size=MAX_DISK)
    image.be(40, 8, 16 * KIB * 16).put(16 * KIB * 16, struct.pack(">Q", 16 * KIB | 1 << 63) * (MAX_DISK // (2 * MIB)))
    case("l2-shared.qcow2", image, "named twice")

    for version in (2, 3):
        whole = qcow2(version)[0]
        for length in (1, 3, 4, 7, 8, 71, 72, 103, 104, 511, 512, cluster, 2 * cluster, 3 * cluster, 3 * cluster + 4,
                       4 * cluster, 4 * cluster + 4096, 5 * cluster, 6 * cluster, 7 * cluster - 1):
            if version == 2 and length in (103, 104):
                continue
            case(f"cut-{length}-v{version}.qcow2", whole.cut(length), "", given="qcow2")
    del missing


# --- vmdk (VMware Virtual Disk Format 5.0)

VMDK_DISK = 1 * MIB


def descriptor(extents, kind="monolithicSparse", more="", parent="ffffffff", newline="\n"):
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", f"parentCID={parent}", f'createType="{kind}"', more,
             "# Extent description", *extents, "# The Disk Data Base", "#DDB", 'ddb.adapterType = "ide"', ""]
    return newline.join(line for line in lines if line or line == "").encode()


def vmdk(text=None, stream=False, size=VMDK_DISK):
    """Sector 0 the header, 1 to 20 the descriptor, 21 the grain directory, 22 the one grain table, from 128 on two grains
    of 64 KiB: the first and the last of the disk."""
    sectors = size // 512
    if text is None:
        kind = "streamOptimized" if stream else "monolithicSparse"
        text = descriptor([f'RW {sectors} SPARSE "x.vmdk"'], kind)
    image = Bytes(64 * KIB)
    flags = 3 | (1 << 16 | 1 << 17 if stream else 0)
    image.put(0, b"KDMV" + struct.pack("<IIQQQQIQQQB", 3 if stream else 1, flags, sectors, 128, 1, 20, 512, 0, 21, 128, 0)
              + b"\n \r\n" + struct.pack("<H", 1 if stream else 0))
    image.put(512, text)
    tables = -(-sectors // (512 * 128))
    for i in range(tables if tables < 100 else 1):
        image.le(21 * 512 + 4 * i, 4, 22 if i == 0 else 0)
    first, last = pattern(64 * KIB, "first"), pattern(64 * KIB, "last")
    at = 128
    for index, data in ((0, first), (sectors // 128 - 1, last)):
        if index >= 512:
            continue
        image.le(22 * 512 + 4 * index, 4, at)
        if stream:
            packed = zlib.compress(data)
            image.put(at * 512, struct.pack("<QI", index * 128, len(packed)) + packed)
            at += -(-(12 + len(packed)) // 512)
        else:
            image.put(at * 512, data)
            at += 128
    image.size = max(image.size, at * 512)
    disk = None
    if size <= 16 * MIB:
        disk = bytearray(size)
        disk[: 64 * KIB] = first
        disk[-64 * KIB :] = last
    return image, disk


def vmdk_cases(case, canary, missing):
    case("good.vmdk", *vmdk())
    case("good-stream.vmdk", *vmdk(stream=True))
    sectors = VMDK_DISK // 512
    own = f'RW {sectors} SPARSE "x.vmdk"'
    image, disk = vmdk(descriptor([own], newline="\r\n"))
    case("good-crlf.vmdk", image, disk)

    # Descriptors as files of their own.
    for name, kind, extents in (
        ("flat", "monolithicFlat", [f'RW {sectors} FLAT "{canary}" 0']),
        ("flat-2gb", "twoGbMaxExtentFlat", [f'RW 1024 FLAT "{canary}" 0', f'RW 1024 FLAT "{canary}" 1024']),
        ("vmfs", "vmfs", [f'RW {sectors} VMFS "{canary}"']),
    ):
        text = descriptor(extents, kind)
        case(f"descriptor-{name}.vmdk", Bytes().put(0, text), "names other files", canary=canary, reader="vmdk")
        case(f"descriptor-{name}-given.vmdk", Bytes().put(0, text), "names other files", given="vmdk")
    for name, text in (
        ("sparse-2gb", descriptor([f'RW {sectors} SPARSE "{missing}"'], "twoGbMaxExtentSparse")),
        ("device", descriptor([f'RW {sectors} FLAT "/dev/full" 0'], "fullDevice")),
        ("partitioned", descriptor([f'RW {sectors} FLAT "/dev/full" 0'], "partitionedDevice")),
        ("rdm", descriptor([f'RW {sectors} VMFSRDM "/dev/full"'], "vmfsRawDeviceMap")),
        ("crlf", descriptor([f'RW {sectors} FLAT "{canary}" 0'], "monolithicFlat", newline="\r\n")),
    ):
        case(f"descriptor-{name}.vmdk", Bytes().put(0, text), "names other files")
    text = descriptor([f'RW {sectors} FLAT "{canary}" 0'], "monolithicFlat")
    # Not the first bytes of the file: for nobody a descriptor, and named like one.
    for name, prefix in (("newline", b"\n"), ("comment", b"# x\n"), ("bom", b"\xef\xbb\xbf"), ("nul", b"\0"), ("space", b" ")):
        case(f"descriptor-after-{name}.vmdk", Bytes().put(0, prefix + text), "vmdk")

    # The embedded descriptor.
    def embedded(name, text, words, **more):
        case(f"embedded-{name}.vmdk", vmdk(text)[0], words, **more)

    embedded("flat", descriptor([f'RW {sectors} FLAT "{canary}" 0'], "monolithicFlat"), "FLAT")
    embedded("flat-honest-type", descriptor([f'RW {sectors} FLAT "{canary}" 0']), "FLAT")
    embedded("second-extent", descriptor([own, f'RW {sectors} FLAT "{canary}" 0']), "FLAT")
    embedded("two-sparse", descriptor([own, f'RW {sectors} SPARSE "{missing}"']), "2 extents")
    embedded("lower-case", descriptor([f'rw {sectors} flat "{canary}" 0']), "flat")
    embedded("tabs", descriptor([f'RW\t{sectors}\tFLAT\t"{canary}"\t0']), "")
    embedded("read-only", descriptor([own, f'RDONLY {sectors} ZERO']), "ZERO")
    embedded("no-access", descriptor([own, f'NOACCESS {sectors} FLAT "{canary}" 0']), "FLAT")
    embedded("no-extent", descriptor([]), "extents")
    embedded("other-size", descriptor(['RW 4096 SPARSE "x.vmdk"']), "descriptor tells of 4096")
    embedded("negative-size", descriptor(['RW -1 SPARSE "x.vmdk"']), "descriptor")
    embedded("parent", descriptor([own], parent="12345678", more=f'parentFileNameHint="{canary}"'), "parent", canary=canary,
             reader="vmdk")
    embedded("parent-id-only", descriptor([own], parent="12345678"), "parent")
    embedded("parent-hint-only", descriptor([own], more=f'parentFileNameHint="{canary}"'), "parent")
    embedded("parent-crlf", descriptor([own], parent="12345678", more=f'parentFileNameHint="{canary}"', newline="\r\n"), "parent")
    embedded("parent-spaces", descriptor([own], more=f'  parentFileNameHint  =  "{canary}"'), "parent")
    embedded("parent-commented", descriptor([own], more=f'# parentFileNameHint="{canary}"'), "parent")
    embedded("encrypted", descriptor([own], more='encryption.keySafe = "vmware:key/list/x"'), "encrypted")
    for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "fullDevice", "partitionedDevice", "vmfs",
                 "vmfsSparse", "seSparse", "custom", ""):
        embedded(f"type-{kind or 'none'}", descriptor([own], kind), f"'{kind}'")
    # What a terminal must not be told.
    embedded("type-escapes", vmdk_text := descriptor([own], "\x1b[2J\x07"), "type")
    embedded("type-not-text", vmdk_text.replace(b"\x1b[2J\x07", b"\xff\xfe\xc0\x80"), "type")
    embedded("extent-type-escapes", descriptor([f'RW {sectors} \x1b[31m "x"']), "extent")
    embedded("type-twice", descriptor([own], more='createType="monolithicFlat"'), "monolithicFlat")
    # Two descriptors: behind the first one's NUL, and in sector 1 while the header names a later place.
    second = descriptor([f'RW {sectors} FLAT "{canary}" 0'], "monolithicFlat", more=f'parentFileNameHint="{canary}"')
    embedded("second-behind-nul", descriptor([own]) + b"\0\n" + second, "parent")
    embedded("nul-in-hint", descriptor([own], more=f'parentFile\0NameHint="{canary}"'), "")
    image, _ = vmdk(second)
    image.put(512 * 512, descriptor([own]).ljust(20 * 512, b"\0")).le(28, 8, 512)
    case("two-descriptors.vmdk", image, "parent", canary=None)
    image, _ = vmdk()
    image.put(512 * 512, second.ljust(20 * 512, b"\0")).le(28, 8, 512)
    case("two-descriptors-late.vmdk", image, "")

    for name, offset, width, value, words in (
        ("version-0", 4, 4, 0, "version 0"), ("version-all", 4, 4, 0xFFFFFFFF, "version"),
        ("capacity-0", 12, 8, 0, "other files"), ("capacity-all", 12, 8, ALL_ONES, "limit"),
        ("capacity-wraps", 12, 8, 1 << 55, "limit"), ("capacity-limit", 12, 8, MAX_DISK // 512 + 1, "limit"),
        ("capacity-other", 12, 8, 4096, "descriptor tells"),
        ("grain-0", 20, 8, 0, "grains"), ("grain-3", 20, 8, 3, "grains"), ("grain-all", 20, 8, ALL_ONES, "grains"),
        ("grain-large", 20, 8, 1 << 31, "grains"),
        ("descriptor-none", 28, 8, 0, "one extent"), ("descriptor-beyond", 28, 8, 1 << 40, "descriptor"),
        ("descriptor-wraps", 28, 8, ALL_ONES, "descriptor"), ("descriptor-long", 36, 8, 1 << 55, "descriptor"),
        ("table-0", 44, 4, 0, "0 entries"), ("table-513", 44, 4, 513, "513 entries"), ("table-all", 44, 4, 0xFFFFFFFF, "entries"),
        ("directory-none", 56, 8, 0, "grain tables"), ("directory-beyond", 56, 8, 1 << 40, "grain directory"),
        ("directory-footer", 56, 8, ALL_ONES, "footer"), ("directory-wraps", 56, 8, ALL_ONES - 1, "grain tables"),
        ("ascii", 73, 4, 0x0D0D0A0A, "text conversion"), ("compression", 77, 2, 9, "compression"),
        ("compressed-flag", 8, 4, 1 << 16 | 3, "compression"),
    ):
        case(f"{name}.vmdk", vmdk()[0].le(offset, width, value), words)
    case("grain-beyond.vmdk", vmdk()[0].le(22 * 512, 4, 0x7FFFFFFF), "truncated")
    case("grain-all-ones.vmdk", vmdk()[0].le(22 * 512, 4, 0xFFFFFFFF), "truncated")
    case("grain-table-beyond.vmdk", vmdk()[0].le(21 * 512, 4, 0xFFFFFFFF), "grain table")
    case("stream-marker-long.vmdk", vmdk(stream=True)[0].le(128 * 512 + 8, 4, 0xFFFFFFFF), "image cannot be read")
    case("stream-noise.vmdk", vmdk(stream=True)[0].put(128 * 512 + 12, bytes(64)), "image cannot be read")
    # One grain table for a whole disk of 4 TiB in grains of 512 bytes: 64 MiB of directory, 8 thousand million grains.
    capacity = MAX_DISK // 512
    image = vmdk(descriptor([f'RW {capacity} SPARSE "x.vmdk"']), size=MAX_DISK)[0]
    image.le(20, 8, 1).le(56, 8, 1024).put(1024 * 512, struct.pack("<I", 22) * (capacity // 512))
    case("table-shared.vmdk", image, "named twice")
    for length in (1, 4, 63, 511, 512, 513, 21 * 512 - 1, 21 * 512, 22 * 512, 22 * 512 + 100, 128 * 512, 200 * KIB - 7 * KIB):
        case(f"cut-{length}.vmdk", vmdk()[0].cut(min(length, 192 * KIB - 1)), "", given="vmdk")


# --- vhd (Microsoft Virtual Hard Disk 1.0)

VHD_DISK = 4 * MIB


def vhd_checksum(data, field):
    return ~sum(data[:field] + data[field + 4 :]) & 0xFFFFFFFF


def vhd_footer(kind, size=VHD_DISK, data_offset=512, change=(), mend=True, creator=b"win "):
    footer = bytearray(struct.pack(">8sIIQI4sI4sQQHBBII16s", b"conectix", 2, 0x10000, data_offset, 0, creator, 0x60001,
                                   b"Wi2k", size, size, 120, 4, 17, kind, 0, bytes(range(16))).ljust(512, b"\0"))
    for offset, data in change:
        footer[offset : offset + len(data)] = data
    if mend:
        footer[64:68] = vhd_checksum(footer, 64).to_bytes(4, "big")
    return bytes(footer)


def vhd_fixed(size=VHD_DISK, **more):
    disk = pattern(64 * KIB, "first") + bytes(VHD_DISK - 128 * KIB) + pattern(64 * KIB, "last")
    return Bytes(VHD_DISK).put(0, disk).put(VHD_DISK, vhd_footer(2, size, data_offset=ALL_ONES, **more)), disk


def vhd_dynamic(kind=3, size=VHD_DISK, change=(), footer=(), mend=True, entries=2):
    """Footer's copy, header at 512, block table at 1536, blocks of 2 MiB from 2048 on, the footer."""
    header = bytearray(struct.pack(">8sQQIII", b"cxsparse", ALL_ONES, 1536, 0x10000, entries, 2 * MIB).ljust(1024, b"\0"))
    for offset, data in change:
        header[offset : offset + len(data)] = data
    if mend:
        header[36:40] = vhd_checksum(header, 36).to_bytes(4, "big")
    disk = pattern(64 * KIB, "first") + bytes(VHD_DISK - 128 * KIB) + pattern(64 * KIB, "last")
    image = Bytes().put(0, vhd_footer(kind, size, change=footer)).put(512, header)
    image.put(1536, struct.pack(">II", 4, 4 + 1 + 4096).ljust(512, b"\xff"))
    for i in range(2):
        at = 2048 + i * (512 + 2 * MIB)
        image.put(at, b"\xff" * 512).put(at + 512, disk[i * 2 * MIB : (i + 1) * 2 * MIB])
    return image.put(2048 + 2 * (512 + 2 * MIB), vhd_footer(kind, size, change=footer)), disk


def vhd_parent(name):
    """Header fields of a differencing disk: the parent's id and name, and a locator with an absolute path."""
    text = name.encode("utf-16-be")
    locator = struct.pack(">4sIIIQ", b"W2ku", 512, len(text), 0, 10 * MIB)
    return [(40, bytes(range(1, 17))), (64, text[:512]), (576, locator)]


def vhd_cases(case, canary, missing):
    case("good-fixed.vhd", *vhd_fixed())
    case("good-dynamic.vhd", *vhd_dynamic())
    image = vhd_dynamic(kind=4, change=vhd_parent(canary))[0]
    case("differencing.vhd", image.put(10 * MIB, canary.encode("utf-16-be")).put(11 * MIB, vhd_footer(4)), "differencing")
    case("parent-named.vhd", vhd_dynamic(change=vhd_parent(canary))[0], "parent")
    case("footers-differ.vhd", vhd_dynamic()[0].put(0, vhd_footer(3, 2 * VHD_DISK)), "differ")
    case("differencing-copy.vhd", vhd_dynamic()[0].put(0, vhd_footer(4)), "differencing")
    for kind in (0, 1, 2, 5, 0xFFFFFFFF):
        case(f"type-{kind}.vhd", vhd_dynamic(kind=kind)[0], "disk type")
    case("fixed-says-dynamic.vhd", vhd_fixed(change=[(60, b"\0\0\0\3")])[0], "disk type")
    case("checksum.vhd", vhd_fixed(mend=False)[0], "checksum")
    case("header-checksum.vhd", vhd_dynamic(mend=False)[0], "checksum")
    for name, size, words in (("0", 0, "no bytes"), ("all", ALL_ONES, "limit"), ("limit", MAX_DISK + 512, "limit"),
                              ("uneven", VHD_DISK - 100, "sectors"), ("sign", 1 << 63, "limit")):
        case(f"fixed-size-{name}.vhd", vhd_fixed(size)[0], words)
        case(f"dynamic-size-{name}.vhd", vhd_dynamic(size=size)[0], words)
    case("fixed-size-more.vhd", vhd_fixed(VHD_DISK + 512)[0], "truncated")
    case("fixed-size-terabyte.vhd", vhd_fixed(TIB)[0], "truncated")
    case("dynamic-size-terabyte.vhd", vhd_dynamic(size=TIB)[0], "block table")
    case("fixed-geometry.vhd", vhd_fixed(creator=b"vpc ", change=[(56, b"\xff\xfe\x10\xff")])[0], "truncated")
    for name, offset, data, words in (
        ("cookie", 0, b"cxsparsf", "dynamic disk header"), ("table-beyond", 16, b"\x7f" * 8, "block allocation table"),
        ("table-wraps", 16, b"\xff" * 8, "block allocation table"), ("entries-0", 28, b"\0" * 4, "block table"),
        ("entries-all", 28, b"\xff" * 4, "block table"), ("block-0", 32, b"\0" * 4, "blocks have 0"),
        ("block-3", 32, b"\0\0\0\3", "blocks have 3"), ("block-all", 32, b"\xff" * 4, "blocks have"),
        ("block-2g", 32, b"\x80\0\0\0", "blocks have"), ("block-512", 32, b"\0\0\2\0", "block table"),
    ):
        case(f"dynamic-{name}.vhd", vhd_dynamic(change=[(offset, data)])[0], words)
    case("header-beyond.vhd", vhd_dynamic(footer=[(16, b"\x7f" * 8)])[0], "dynamic disk header")
    case("header-wraps.vhd", vhd_dynamic(footer=[(16, b"\xff" * 8)])[0], "dynamic disk header")
    # Its own footer as dynamic disk header.
    case("header-at-0.vhd", vhd_dynamic(footer=[(16, b"\0" * 8)])[0], "dynamic disk header")
    case("block-beyond.vhd", vhd_dynamic()[0].be(1536, 4, 0xFFFFFFFE), "truncated")
    whole = vhd_dynamic()[0]
    for length in (1, 511, 512, 1023, 1536, 1540, 2048, 2 * MIB, whole.size - 512, whole.size - 1):
        case(f"cut-dynamic-{length}.vhd", whole.cut(length), "", given="vpc")
    for length in (511, 512, VHD_DISK, VHD_DISK + 511):
        case(f"cut-fixed-{length}.vhd", vhd_fixed()[0].cut(length), "", given="vpc")
    del missing


# --- vhdx ([MS-VHDX])

VHDX_DISK = 1 * MIB
GUID = {
    "bat": "6677c22d23f600429d64115e9bfd4a08", "metadata": "06a27c8b90479a4bb8fe575f050f886e",
    "parameters": "3767a1ca36fa434db3b633f0aa44e76b", "size": "2442a52f1bcd7648b2115dbed83bf4b8",
    "id": "ab12cabee6b2234593efc309e000c746", "logical": "1dbf41816fa90947ba47f233a8faab5f",
    "physical": "c748a3cd5d4471449cc9e9885251c556", "parent": "2d5fd3a80bb34d45abf7d3d84834ab0c",
    "unknown": "00112233445566778899aabbccddeeff",
}


def _crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = _crc32c_table()
_sums = {}


def crc32c(data):
    if data not in _sums:
        value = 0xFFFFFFFF
        for byte in data:
            value = CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
        _sums[data] = value ^ 0xFFFFFFFF
    return _sums[data]


def summed(data, length):
    data = data.ljust(length, b"\0")
    return data[:4] + crc32c(data[:4] + bytes(4) + data[8:]).to_bytes(4, "little") + data[8:]


def vhdx(size=VHDX_DISK, block=MIB, flags=0, sector=512, log_id=bytes(16), log=(MIB, MIB), version=1, regions=None,
         entries=None, items=None, bat=3 * MIB | 6, more_metadata=(), count=None, mend=True):
    """Log at 1 MiB, block table at 2 MiB, the only block at 3 MiB, metadata at 4 MiB."""
    disk = pattern(64 * KIB, "first") + bytes(VHDX_DISK - 128 * KIB) + pattern(64 * KIB, "last")
    image = Bytes(5 * MIB).put(0, b"vhdxfile")
    for place, sequence in ((64 * KIB, 1), (128 * KIB, 2)):
        header = b"head" + bytes(4) + struct.pack("<Q", sequence) + bytes(range(32)) + log_id
        header += struct.pack("<HHIQ", 0, version, log[1], log[0])
        image.put(place, summed(header, 4 * KIB) if mend else header)
    if regions is None:
        regions = [("bat", 2 * MIB, MIB, 1), ("metadata", 4 * MIB, MIB, 1)]
    table = b"regi" + bytes(4) + struct.pack("<II", len(regions) if count is None else count, 0)
    for name, offset, length, required in regions:
        table += bytes.fromhex(GUID[name]) + struct.pack("<QII", offset & ALL_ONES, length & 0xFFFFFFFF, required)
    for place in (192 * KIB, 256 * KIB):
        image.put(place, summed(table, 64 * KIB))
    if items is None:
        items = [("parameters", struct.pack("<II", block, flags), 4), ("size", struct.pack("<Q", size), 6),
                 ("id", bytes(16), 6), ("logical", struct.pack("<I", sector), 6), ("physical", struct.pack("<I", 4096), 6)]
    items = list(items) + list(more_metadata)
    metadata = b"metadata" + struct.pack("<HH", 0, len(items) if entries is None else entries) + bytes(20)
    place = 64 * KIB
    for name, data, bits in items:
        at, length = place, len(data)
        if isinstance(data, tuple):
            at, length, data = data
        metadata += bytes.fromhex(GUID[name]) + struct.pack("<IIII", at, length, bits, 0)
        if at == place:
            image.put(4 * MIB + at, data)
            place += -(-len(data) // 8) * 8
    image.put(4 * MIB, metadata)
    image.le(2 * MIB, 8, bat).put(3 * MIB, disk)
    return image, disk


def vhdx_cases(case, canary, missing):
    case("good.vhdx", *vhdx())
    image, disk = vhdx()
    case("good-one-header.vhdx", image.put(64 * KIB + 100, b"\1"), disk)
    # One good copy is enough for us, but not for the program that reads.
    case("one-region-table.vhdx", vhdx()[0].put(192 * KIB, b"XXXX"), "qemu-nbd cannot open")
    pairs = "".join((f"absolute_win32_path\0{canary}", "parent_linkage\0{00112233}")).encode("utf-16-le")
    locator = struct.pack("<16sHH", bytes.fromhex("b704efb19eced041826ab6cad0c4aa1a"[:32]), 0, 2) + pairs
    case("parent-locator.vhdx", vhdx(flags=2, more_metadata=[("parent", locator, 4)])[0], "parent")
    case("parent-locator-alone.vhdx", vhdx(more_metadata=[("parent", locator, 4)])[0], "parent")
    case("parent-flag-alone.vhdx", vhdx(flags=2)[0], "parent")
    case("partly-present.vhdx", vhdx(bat=3 * MIB | 7)[0], "parent")

    log_id = bytes(range(1, 17))
    entry = b"loge" + bytes(4) + struct.pack("<IIQII", 4096, 0, 1, 0, 0) + log_id + struct.pack("<QQ", 5 * MIB, 5 * MIB)
    case("log-pending.vhdx", vhdx(log_id=log_id)[0].put(MIB, summed(entry, 4 * KIB)), "replayed")
    case("log-pending-late.vhdx", vhdx(log_id=log_id)[0].put(2 * MIB - 4 * KIB, summed(entry, 4 * KIB)), "replayed")
    image, disk = vhdx()
    case("good-log-of-another-time.vhdx", image.put(MIB, summed(entry, 4 * KIB)), disk)
    for name, log in (("uneven", (MIB + 1, MIB)), ("beyond", (1 << 50, MIB)), ("long", (MIB, 0xFFF00000)),
                      ("wraps", (ALL_ONES - MIB + 1, MIB))):
        case(f"log-{name}.vhdx", vhdx(log_id=log_id, log=log)[0], "log")
    case("version.vhdx", vhdx(version=2)[0], "version")
    case("headers.vhdx", vhdx(mend=False)[0], "headers")

    good = [("bat", 2 * MIB, MIB, 1), ("metadata", 4 * MIB, MIB, 1)]
    for name, regions, words in (
        ("none", [], "lacks a region"), ("no-bat", good[1:], "lacks a region"), ("no-metadata", good[:1], "lacks a region"),
        ("bat-at-0", [("bat", 0, MIB, 1), good[1]], "lacks a region"), ("uneven", [("bat", MIB + 7, MIB, 1), good[1]], "wrong place"),
        ("bat-beyond", [("bat", 1 << 50, MIB, 1), good[1]], "truncated"), ("bat-long", [("bat", MIB, 0xFFF00000, 1), good[1]], "truncated"),
        ("bat-wraps", [("bat", -MIB, MIB, 1), good[1]], "truncated"),
        ("metadata-beyond", [good[0], ("metadata", 1 << 50, MIB, 1)], "truncated"),
        ("unknown", good + [("unknown", MIB, MIB, 1)], "unknown kind"),
    ):
        case(f"regions-{name}.vhdx", vhdx(regions=regions)[0], words)
    case("regions-all.vhdx", vhdx(count=0xFFFFFFFF)[0], "region tables")
    case("regions-2048.vhdx", vhdx(count=2048)[0], "region tables")

    for name, size, words in (("0", 0, "no bytes"), ("all", ALL_ONES, "limit"), ("limit", MAX_DISK + 512, "limit"),
                              ("uneven", VHDX_DISK - 100, "sectors"), ("table", MAX_DISK, "block table")):
        case(f"size-{name}.vhdx", vhdx(size)[0], words)
    for block in (0, 1, 512, 3 * MIB, 512 * MIB, 0xFFFFFFFF):
        case(f"block-{block}.vhdx", vhdx(block=block)[0], "blocks have")
    for sector in (0, 1, 513, 0xFFFFFFFF):
        case(f"sector-{sector}.vhdx", vhdx(sector=sector)[0], "sectors have")
    case("metadata-entries.vhdx", vhdx(entries=65535)[0], "metadata table")
    case("metadata-none.vhdx", vhdx(items=[])[0], "blocks have 0")
    for name, data in (("beyond", (0xFFFFFFF8, 8, b"")), ("long", (64 * KIB, 0xFFFFFFFF, b"")), ("short", (64 * KIB, 1, b""))):
        items = [("parameters", struct.pack("<II", MIB, 0), 4), ("size", data, 6), ("logical", struct.pack("<I", 512), 6)]
        case(f"metadata-{name}.vhdx", vhdx(items=items)[0], "metadata item")
    case("metadata-unknown.vhdx", vhdx(more_metadata=[("unknown", b"x" * 8, 4)])[0], "unknown kind")
    case("block-nowhere.vhdx", vhdx(bat=6)[0], "no place")
    case("block-beyond.vhdx", vhdx(bat=1 << 50 | 6)[0], "truncated")
    case("block-far.vhdx", vhdx(bat=ALL_ONES - MIB + 1 | 6)[0], "truncated")
    for state in (4, 5):
        case(f"block-state-{state}.vhdx", vhdx(bat=3 * MIB | state)[0], "undefined state")
    whole = vhdx()[0]
    for length in (7, 8, 64 * KIB, 68 * KIB, 192 * KIB, 256 * KIB + 100, 320 * KIB, MIB, 2 * MIB, 2 * MIB + 4, 3 * MIB,
                   4 * MIB, 4 * MIB + 100, 5 * MIB - 1):
        case(f"cut-{length}.vhdx", whole.cut(length), "", given="vhdx")
    del missing


# --- vdi (VirtualBox 1.1)

VDI_DISK = 2 * MIB


def vdi(size=VDI_DISK, kind=1, blocks=2, change=()):
    """Header, block map at 1 MiB, data from 2 MiB on."""
    disk = pattern(64 * KIB, "first") + bytes(VDI_DISK - 128 * KIB) + pattern(64 * KIB, "last")
    image = Bytes().put(0, b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0"))
    image.le(0x40, 4, 0xBEDA107F).le(0x44, 4, 0x10001).le(0x48, 4, 0x190).le(0x4C, 4, kind)
    image.le(0x154, 4, MIB).le(0x158, 4, 2 * MIB).le(0x168, 4, 512).le(0x170, 8, size).le(0x178, 4, MIB)
    image.le(0x180, 4, blocks).le(0x184, 4, 2).put(0x188, bytes(range(1, 33)))
    image.put(MIB, struct.pack("<II", 0, 1)).put(2 * MIB, disk)
    for offset, width, value in change:
        image.le(offset, width, value)
    return image, disk


def vdi_cases(case, canary, missing):
    case("good.vdi", *vdi())
    case("good-fixed.vdi", *vdi(kind=2))
    for name, change, words in (
        ("differencing", [(0x4C, 4, 4)], "difference"), ("undo", [(0x4C, 4, 3)], "difference"), ("type-0", [(0x4C, 4, 0)], "difference"),
        ("linked", [(0x1A8, 8, 1)], "parent"), ("parent", [(0x1B8, 8, 1)], "parent"), ("parent-late", [(0x1C7, 1, 1)], "parent"),
        ("version", [(0x44, 4, 0x10000)], "version 1.0"), ("version-all", [(0x44, 4, 0xFFFFFFFF)], "version"),
        ("sector", [(0x168, 4, 4096)], "sectors"), ("block-0", [(0x178, 4, 0)], "blocks other"),
        ("block-2m", [(0x178, 4, 2 * MIB)], "blocks other"), ("block-extra", [(0x17C, 4, 512)], "blocks other"),
        ("size-0", [(0x170, 8, 0)], "no bytes"), ("size-all", [(0x170, 8, ALL_ONES)], "limit"),
        ("size-limit", [(0x170, 8, MAX_DISK + 512)], "limit"), ("size-table", [(0x170, 8, MAX_DISK)], "block map"),
        ("blocks-0", [(0x180, 4, 0)], "block map"), ("blocks-1", [(0x180, 4, 1)], "block map"),
        ("blocks-all", [(0x180, 4, 0xFFFFFFFF)], "block map"), ("blocks-overlap", [(0x180, 4, 16 * MIB)], "overlap"),
        ("map-0", [(0x154, 4, 0)], "tables"), ("map-uneven", [(0x154, 4, MIB + 1)], "tables"),
        ("map-beyond", [(0x154, 4, 0xFFFFFE00)], "block map"), ("data-uneven", [(0x158, 4, 2 * MIB + 1)], "tables"),
        ("data-in-header", [(0x158, 4, 0)], "overlap"), ("data-beyond", [(0x158, 4, 0xFFFFFE00)], "truncated"),
        ("block-beyond", [(MIB, 4, 2)], "truncated"), ("block-far", [(MIB, 4, 0xFFFFFFFD)], "truncated"),
    ):
        case(f"{name}.vdi", vdi(change=change)[0], words)
    whole = vdi()[0]
    for length in (1, 0x43, 0x44, 511, 512, MIB, MIB + 4, 2 * MIB, 3 * MIB, 4 * MIB - 1):
        case(f"cut-{length}.vdi", whole.cut(length), "", given="vdi")
    del canary, missing


# --- what the name, the given format and the bytes say, each another thing

FORMATS = ("qcow2", "vmdk", "vpc", "vhdx", "vdi")


def mixed_cases(case, canary, missing):
    good = {"qcow2": qcow2()[0], "vmdk": vmdk()[0], "vpc": vhd_dynamic()[0], "vhdx": vhdx()[0], "vdi": vdi()[0]}
    for is_one, image in good.items():
        for given in ("raw", *FORMATS):
            if given != is_one:
                case(f"{is_one}-given-as-{given}.img", image, f"given as {given}", given=given, field="format")
    disk = pattern(QCOW2_DISK, "raw disk")
    raw = Bytes().put(0, disk)
    case("good-raw.img", raw, disk)
    case("good-raw-given.img", raw, disk, given="raw")
    for given in FORMATS:
        case(f"raw-given-as-{given}.img", raw, f"no {given} image", given=given)
        case(f"raw-named.{given}", raw, "named like")
    case("raw-named.QCOW2", raw, "named like")
    case("raw-named-given.qcow2", raw, disk, given="raw")
    # A disk whose guest wrote a header to its first sector, to be taken for an image when it is imported as a file.
    planted = Bytes().put(0, disk).put(0, qcow2(backing=canary.encode())[0].get(0, 512))
    case("planted-qcow2.img", planted, "backing file", canary=canary)
    case("planted-qcow2-given-raw.img", planted, "given as raw", given="raw", field="format")
    case("planted-vmdk.img", Bytes().put(0, disk).put(0, descriptor([f'RW 2048 FLAT "{canary}" 0'], "monolithicFlat").ljust(1024, b"\n")),
         "names other files", canary=canary, reader="vmdk")
    case("planted-vhd.img", Bytes().put(0, disk).put(QCOW2_DISK, vhd_footer(4)), "differencing")
    # Two formats at once: a fixed vhd whose disk begins like a qcow2 file is a qcow2 file to a reader that guesses.
    image = vhd_fixed()[0].put(0, qcow2(backing=canary.encode())[0].get(0, 512))
    case("qcow2-and-vhd.img", image, "backing file")
    case("qcow2-and-vhd-given.vhd", image, "given as vpc", given="vpc", field="format")
    case("size-odd.img", Bytes().put(0, disk[:-1]), disk[:-1])
    case("size-one.img", Bytes().put(0, b"x"), b"x")
    case("size-zero.img", Bytes(), "empty")
    case("size-limit.img", Bytes(MAX_DISK + 1), "limit")
    for name, magic in (("gzip", b"\x1f\x8b\x08"), ("xz", b"\xfd7zXZ\0"), ("zstd", b"\x28\xb5\x2f\xfd"), ("luks", b"LUKS\xba\xbe\0\2"),
                        ("qed", b"QED\0"), ("cowd", b"COWD")):
        case(f"magic-{name}.img", Bytes().put(0, disk).put(0, magic), "the source is")
    del missing


GROUPS = (qcow2_cases, vmdk_cases, vhd_cases, vhdx_cases, vdi_cases, mixed_cases)
# For a case's reader when none is said: by the suffix of its name.
READERS = {"qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi", "img": "qcow2"}


def for_each_case(canary, missing, take):
    def case(name, image, outcome, given=None, canary=None, reader=None, field="source", code="INVALID_ARGUMENT"):
        suffix = name.rsplit(".", 1)[-1]
        take(name, image, outcome, given, canary, reader or READERS.get(suffix), field, code)

    for group in GROUPS:
        group(case, canary, missing)


def make_images(folder):
    os.makedirs(folder)
    canary = os.path.join(os.path.realpath(folder), "canary")
    with open(canary, "wb") as file:
        file.write(pattern(VHD_DISK, "canary"))
    cases = []

    def take(name, image, outcome, given, named, reader, field, code):
        path = os.path.join(folder, name)
        assert not os.path.exists(path), name
        image.write(path)
        good = not isinstance(outcome, str)
        cases.append({
            "file": name, "format": given, "canary": named and os.path.basename(named), "reader": reader,
            "refused": None if good else {"code": code, "field": field, "words": outcome},
            "sha256": hashlib.sha256(outcome).hexdigest() if good else None, "size": len(outcome) if good else None,
        })

    for_each_case(canary, canary + "-missing", take)
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as file:
        json.dump(cases, file, indent=1)
    print(f"{len(cases)} files, {sum(case['refused'] is None for case in cases)} of them good")


def make_seeds(folder):
    os.makedirs(folder, exist_ok=True)
    formats = {None: 0, "raw": 1, "qcow2": 2, "vmdk": 3, "vpc": 4, "vhdx": 5, "vdi": 6}
    count = 0

    def take(name, image, _outcome, given, *_):
        nonlocal count
        selector = formats[given] | (0x40 if image.size > 16 * MIB else 0)
        selector |= 0x80 if name.endswith((".vhd", ".vhdx")) else 0
        with open(os.path.join(folder, name), "wb") as file:
            file.write(image.seed(selector))
        count += 1

    for_each_case("/canary", "/missing", take)
    print(f"{count} seeds")


if __name__ == "__main__":
    commands = {"images": make_images, "seeds": make_seeds}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(f"usage: {sys.argv[0]} images|seeds DIR")
    commands[sys.argv[1]](sys.argv[2])
