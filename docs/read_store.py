"""Reads a store without this project's code: Python's standard library only.

    python3 read_store.py STORE [DOCUMENT]

Prints each document as one line of JSON; with a document, its softprompt as lines of numbers.
It follows format.md, section by section, and is run by the tests. Written for clarity: it holds
the whole catalogue in memory and checks every checksum it meets.
"""

import hashlib
import json
import pathlib
import struct
import sys


class Catalogue:
    """The tables of `catalog.redb`: a minimal reader of redb's file format, version 3."""

    def __init__(self, path):
        self.data = path.read_bytes()
        if self.data[:9] != b"redb\x1a\x0a\xa9\x0d\x0a":
            raise SystemExit(f"{path} is not a redb file")
        flags = self.data[9]
        if flags & 2:
            raise SystemExit(f"{path} was not closed: open the store once for writing")
        self.page, self.header, self.region = struct.unpack_from("<III", self.data, 12)
        slot = 64 + 128 * (flags & 1)  # the primary of two commit slots
        self.tables = {}
        if self.data[slot + 1]:
            root = struct.unpack_from("<Q", self.data, slot + 8)[0]
            for name, definition in self.entries(root, None, None):
                self.tables[name.decode()] = definition

    def entries(self, number, key_size, value_size):
        """The (key, value) pairs of the B-tree below a page, in order."""
        order, region = number >> 59, (number >> 20) & 0xFFFFF
        index = number & (0xFFFFF >> order)
        start = self.page + region * (self.header + self.region) * self.page
        start += self.header * self.page + index * (self.page << order)
        page = self.data[start : start + (self.page << order)]
        kind, count = page[0], struct.unpack_from("<H", page, 2)[0]
        if kind == 2:  # a branch: count keys, count + 1 children
            children = struct.unpack_from(f"<{count + 1}Q", page, 8 + 16 * (count + 1))
            for child in children:
                yield from self.entries(child, key_size, value_size)
            return
        at, ends = 4, []  # a leaf: ends of keys and values where they vary, then both
        for size in (key_size, value_size):
            if size is None:
                ends.append(struct.unpack_from(f"<{count}I", page, at))
                at += 4 * count
            else:
                ends.append(None)
        for i in range(count):
            pair, begin = [], at
            for end, size in zip(ends, (key_size, value_size)):
                if end is None:
                    pair.append(page[begin + size * i : begin + size * (i + 1)])
                    begin += size * count
                else:
                    pair.append(page[end[i - 1] if i else begin : end[i]])
                    begin = end[-1]
            yield tuple(pair)

    def table(self, name):
        """A table as a list of (key, value) in bytes."""
        definition = self.tables.get(name)
        if definition is None or not definition[9]:
            return []
        root = struct.unpack_from("<Q", definition, 10)[0]
        sizes = []
        for at in (42, 47):
            fixed, size = struct.unpack_from("<BI", definition, at)
            sizes.append(size if fixed else None)
        return list(self.entries(root, *sizes))


def check(path, digest):
    """The contents of a file, if its SHA-256 is right."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit(f"{path} is damaged")
    return data


def safetensors(data):
    """Metadata, and tensors as (type, shape, bytes)."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    body = data[8 + length :]
    return metadata, {
        name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def rows(data):
    """The rows of a summary file as lists of floats."""
    metadata, tensors = safetensors(data)
    label = json.loads(metadata["lloco"])
    if (label["format"], label["version"]) != ("lloco-summary", 1):
        raise SystemExit(f"cannot read {label['format']} version {label['version']}")
    kind, (count, width), values = tensors["summary"]
    letter = {"F16": "e", "F32": "f", "I8": "b"}[kind]
    flat = struct.unpack(f"<{count * width}{letter}", values)
    table = [list(flat[i * width : (i + 1) * width]) for i in range(count)]
    if kind == "I8":
        scales = struct.unpack(f"<{count}f", tensors["scale"][2])
        table = [[value * scale for value in row] for row, scale in zip(table, scales)]
    return table


def fan(root, digest, ending):
    return root / digest[:2] / f"{digest}.{ending}"


def main(store, wanted=None):
    store = pathlib.Path(store)
    stamp = json.loads((store / "format.json").read_text())
    if (stamp["format"], stamp["version"]) != ("lloco-store", 1):
        raise SystemExit(f"cannot read {stamp['format']} version {stamp['version']}")
    catalogue = Catalogue(store / "catalog.redb")
    encoders = {key.hex(): json.loads(value) for key, value in catalogue.table("encoders")}
    summaries = {key.hex(): json.loads(value) for key, value in catalogue.table("summaries")}
    segments = {}
    for key, value in catalogue.table("segments"):
        encoding = (key[:32].hex(), key[32:64].hex())
        segments.setdefault(encoding, []).append((struct.unpack("<I", key[64:])[0], json.loads(value)["key"]))
    for key, value in catalogue.table("documents"):
        document = json.loads(value)
        text = check(fan(store / "text", document["text"], "txt"), document["text"]).decode()
        softprompt = []
        if document["encoder"]:
            encoder = encoders[document["encoder"]]
            keys = [key for _, key in sorted(segments.get((document["text"], document["encoder"]), []))]
            if encoder["recurrent"] and not encoder["accumulate"]:
                keys = keys[-1:]
            for name in keys:
                softprompt += rows(check(fan(store / "summaries", name, "safetensors"), summaries[name]["sha256"]))
        if wanted is None:
            shown = {"id": key.decode(), "group": document["group"], "title": document["title"], "text": text}
            print(json.dumps(shown | {"vectors": len(softprompt)}))
        elif wanted == key.decode():
            for row in softprompt:
                print(" ".join(repr(value) for value in row))


if __name__ == "__main__":
    main(*sys.argv[1:])
