#!/usr/bin/env python3
"""A second decoder of the Banmesh protocol, version 1.

It was written from docs/protocol.md, with Python's standard library alone, and
checks the test vectors: every payload must be read as the vectors say, or be
refused for the reason that they give. Ed25519 signatures are checked by
openssl.

    decoder.py testdata/vectors/messages.json
"""

import base64
import hashlib
import ipaddress
import json
import os
import re
import subprocess
import sys
import tempfile

MAX_PAYLOAD = 128 << 10
MAX_HEAD = 4 << 10
MAX_STATE = 2 << 10
MAX_CARD = 32 << 10
MAX_CLAIMS = 32 << 10
MAX_SLOT = 8191
NODE_KINDS = ("head", "delta", "segment", "chunk", "manifest", "dispute")
KINDS = ("", *NODE_KINDS, "card", "trust", "topics", "invitation", "live", "list")
BASES = ("weak", "strong", "handed-over", "decided")
REASONS = ("ended", "mistake", "appeal")
WIDTHS = {1: 4, 2: 16, 3: 8, 4: 5, 5: 17, 6: 20}


class Refused(Exception):
    """The payload is refused; the first argument is the reason."""


def base32(b):
    return base64.b32encode(b).decode().lower().rstrip("=")


def operator_of(key):
    return base32(hashlib.sha256(key).digest()[:16])


def node_of(key):
    return base32(hashlib.sha256(key).digest()[:10])


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Refused("format", "cut off")
        self.at += n
        return self.data[self.at - n:self.at]

    def uint(self, n):
        return int.from_bytes(self.take(n), "big")

    def uvarint(self, most=2**64 - 1):
        value = shift = 0
        while True:
            c = self.take(1)[0]
            value |= (c & 0x7F) << shift
            if c < 0x80:
                if shift and c == 0:
                    raise Refused("format", "a number is not in its shortest form")
                break
            shift += 7
            if shift > 63:
                raise Refused("format", "a number is too long")
        if value > most:
            raise Refused("format", "a number is above its limit")
        return value

    def text(self, most):
        return self.take(self.uvarint(most))

    def line(self, most):
        return self.text(most).decode()

    def end(self):
        if self.at != len(self.data):
            raise Refused("format", "bytes are left over")

    # keys: total, then groups of kind, count, keys
    def keys(self):
        total, out, before = self.uvarint(MAX_CLAIMS), [], 0
        while len(out) < total:
            kind, count = self.uint(1), self.uvarint(total - len(out))
            if kind <= before or kind not in WIDTHS or count == 0:
                raise Refused("format", "the kinds of targets are not in order")
            before, last = kind, None
            for _ in range(count):
                width = WIDTHS[kind]
                if kind in (1, 3):
                    step = self.uvarint(2 ** (8 * width) - 1 - (last or 0))
                    if last is not None and step == 0:
                        raise Refused("format", "targets are not in order")
                    last = (last or 0) + step
                    key = last.to_bytes(width, "big")
                else:
                    key = self.take(width)
                    if last is not None and key <= last:
                        raise Refused("format", "targets are not in order")
                    last = key
                target(kind, key)
                out.append((kind, key))
        return out

    def entries(self):
        keys = self.keys()
        if not keys:
            return []
        base = self.uint(4)
        steps = [self.uvarint(2**32 - 1 - base) for _ in keys]
        if min(steps) != 0:
            raise Refused("format", "the base is not the least end")
        pairs = self.uvarint(256)
        if pairs == 0:
            metas = [self.take(2) for _ in keys]
            if len(set(metas)) <= 256:
                raise Refused("format", "there are few enough pairs for a table")
        else:
            table = [self.take(2) for _ in range(pairs)]
            if pairs == 1:
                index = bytes(len(keys))
            elif pairs <= 16:
                halves = [h for c in self.take((len(keys) + 1) // 2) for h in (c >> 4, c & 15)]
                index, rest = halves[:len(keys)], halves[len(keys):]
                if any(rest):
                    raise Refused("format", "the odd half byte is not zero")
            else:
                index = self.take(len(keys))
            if len(set(table)) != pairs or max(index) >= pairs or list(dict.fromkeys(index)) != list(range(pairs)):
                raise Refused("format", "the table of pairs is not canonical")
            metas = [table[i] for i in index]
        return [(k, key, base + s, m[0], m[1]) for (k, key), s, m in zip(keys, steps, metas)]

    # withdrawals: keys, the reason of all, or 255 and the reason of each
    def withdrawals(self):
        keys = self.keys()
        if not keys:
            return []
        reasons = self.take(1) * len(keys)
        if reasons[0] == 255:
            reasons = self.take(len(keys))
            if len(set(reasons)) == 1 or 255 in reasons:
                raise Refused("format", "the reasons are not canonical")
        return [(kind, key, reason) for (kind, key), reason in zip(keys, reasons)]

    def pieces(self, most):
        chunks, segments = [], []
        for i in range(self.uvarint(most)):
            c = {"lo": self.text(21).hex(), "slot": self.uvarint(MAX_SLOT), "hash": self.take(16).hex(), "size": self.uvarint(MAX_PAYLOAD)}
            if (c["lo"] == "") != (i == 0) or i and c["lo"] <= chunks[-1]["lo"]:
                raise Refused("format", "chunks are not in order")
            chunks.append(c)
        for i in range(self.uvarint(most)):
            start = self.uvarint()
            s = {"from": start, "to": start + self.uvarint(2**64 - 1 - start), "slot": self.uvarint(MAX_SLOT), "hash": self.take(16).hex(), "size": self.uvarint(MAX_PAYLOAD)}
            if s["to"] == start or i and start != segments[-1]["to"]:
                raise Refused("format", "segments are not in order")
            segments.append(s)
        return chunks, segments


def target(kind, key):
    """The text of a target; refuses one that is not canonical."""
    bad = Refused("format", "a target is not canonical")
    if kind == 6:
        if not any(key):
            raise bad
        return "0x" + key.hex()
    if kind == 1:
        return str(ipaddress.IPv4Address(key))
    if kind == 2:
        address = ipaddress.IPv6Address(key)
        if address.ipv4_mapped is not None:
            raise bad
        return str(address)
    if kind == 3:
        return str(ipaddress.IPv6Network((key + bytes(8), 64)))
    bits, key = key[-1], key[:-1]
    try:
        network = ipaddress.ip_network((key, bits))
    except ValueError:
        raise bad from None
    if kind == 4 and bits == 32 or kind == 5 and bits in (64, 128):
        raise bad
    if kind == 5 and bits >= 96 and network.network_address.ipv4_mapped is not None:
        raise bad
    return str(network)


def claims(entries):
    return [
        {"target": target(k, key), "end": 60 * end, "class": c & 31, "hits": hits, "established": c >= 128, "basis": BASES[c >> 5 & 3]}
        for k, key, end, c, hits in entries]


def entry(claim):
    """The entry of a claim as the vectors have it."""
    text = claim["target"]
    if text.startswith("0x"):
        kind, key = 6, bytes.fromhex(text[2:])
    else:
        net = ipaddress.ip_network(text)
        key, four, bits = net.network_address.packed, net.version == 4, net.prefixlen
        if bits == 8 * len(key):
            kind = 1 if four else 2
        elif not four and bits == 64:
            kind, key = 3, key[:8]
        else:
            kind, key = 4 if four else 5, key + bytes([bits])
    c = claim["class"] | BASES.index(claim["basis"]) << 5 | claim["established"] << 7
    return kind, key, claim["end"] // 60, c, claim["hits"]


def fingerprint(entries):
    """The root of the Merkle tree over sorted entries."""
    if len(entries) <= 128:
        return hashlib.sha256(b"\0" + b"".join(bytes([k]) + key + end.to_bytes(4, "big") + bytes([c, hits]) for k, key, end, c, hits in entries)).digest()
    bits = ["".join(f"{b:08b}" for b in bytes([k]) + key) for k, key, *_ in entries]
    at = len(os.path.commonprefix((bits[0], bits[-1])))
    middle = sum(b[at] == "0" for b in bits)
    return hashlib.sha256(b"\1" + fingerprint(entries[:middle]) + fingerprint(entries[middle:])).digest()


def verify(key, signature, message):
    """Whether an Ed25519 signature holds, according to openssl."""
    der = bytes.fromhex("302a300506032b6570032100") + key
    with tempfile.TemporaryDirectory() as d:
        for name, data in (("key", der), ("sig", signature), ("msg", message)):
            with open(os.path.join(d, name), "wb") as f:
                f.write(data)
        done = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", d + "/key", "-rawin", "-in", d + "/msg", "-sigfile", d + "/sig"],
            capture_output=True, check=False)
        return done.returncode == 0


def parse_topic(topic):
    levels = topic.split("/")
    if levels[:2] != ["banmesh", "1"]:
        raise ValueError(topic)
    if levels[3] == "operators":
        return {"network": levels[2], "operator": levels[4], "kind": levels[5], "topic": levels[6] if len(levels) > 6 else "", "slot": None}
    return {"network": levels[2], "topic": levels[3], "operator": levels[4], "node": levels[5], "kind": levels[6], "slot": int(levels[7]) if len(levels) > 7 else None}


def read(topic, payload):
    """A message as the vectors describe one."""
    place = parse_topic(topic)
    most = {"head": MAX_HEAD + MAX_STATE, "card": MAX_CARD}.get(place["kind"], MAX_PAYLOAD)
    if not 64 < len(payload) <= most:
        raise Refused("size", "")
    r = Reader(payload[64:])
    if r.take(4) != b"BMSH" or r.uint(1) != 1:
        raise Refused("format", "not version 1 of the protocol")
    number = r.uint(1)
    network, ban_topic = r.text(32).decode(), r.text(32).decode()
    operator, signer = base32(r.take(16)), r.take(32)
    m = {"epoch": r.uint(8), "number": r.uint(8), "issued": r.uint(4)}
    kind = KINDS[number] if number < len(KINDS) else ""
    node = kind in NODE_KINDS
    if kind != place["kind"] or network != ("" if kind == "card" else place["network"]) or ban_topic != place["topic"] or operator != place["operator"]:
        raise Refused("misplaced", "")
    if node and node_of(signer) != place["node"] or not node and operator_of(signer) != operator:
        raise Refused("misplaced", "")
    state = b""
    if kind == "head":
        payload, state = cut_head(payload, r.at)
    if not verify(signer, payload[:64], payload[64:]):
        raise Refused("signature", "")
    m |= {"kind": kind, "operator": operator, "signer": signer.hex(), "hash": hashlib.sha256(payload[64 + r.at:]).digest()[:16].hex()}
    for name, value in (("network", network), ("topic", ban_topic), ("node", node_of(signer) if node else "")):
        if value:
            m[name] = value
    r = Reader(payload[64 + r.at:])
    body(kind, r, m, place)
    r.end()
    if state:
        r = Reader(state)
        entries = r.entries()
        r.end()
        if not entries:
            raise Refused("format", "an empty state")
        m["claims"] = claims(entries)
    return m


def cut_head(payload, at):
    """A head's payload without the state behind it, and the state."""
    r = Reader(payload[64 + at:])
    try:
        body("head", r, {}, {"slot": None})
    except Refused:
        return payload, b""
    end = 64 + at + r.at
    if end > MAX_HEAD or len(payload) - end > MAX_STATE:
        raise Refused("size", "")
    return payload[:end], payload[end:]


def body(kind, r, m, place):
    def put(name, value):
        if value not in ("", [], 0):
            m[name] = value

    def ops(withdrawn=True):
        up = r.entries()
        put("claims", claims(up))
        if withdrawn:
            put("withdrawn", [
                {"target": target(k, key), "reason": REASONS[n] if n < len(REASONS) else f"reason-{n}"} for k, key, n in r.withdrawals()])
        return up

    def pieces(most):
        chunks, segments = r.pieces(most)
        for c in chunks:
            if not c["lo"]:
                del c["lo"]
        put("chunks", chunks)
        put("segments", segments)

    if kind == "head":
        m["n"] = r.uint(8)
        m["ttl"], m["gc"], m["count"] = r.uint(4), 60 * r.uint(4), r.uint(4)
        m["fingerprint"], m["card_serial"], m["card_hash"], m["ring"] = r.take(32).hex(), r.uint(8), r.take(16).hex(), r.uint(2)
        m["snapshot_n"], m["snapshot_gc"] = r.uint(8), 60 * r.uint(4)
        if not 1 <= m["ring"] <= 1024 or not 1 <= m["ttl"] <= 86400 or m["count"] > 2**20 or m["snapshot_n"] > m["n"] or m["snapshot_gc"] > m["gc"]:
            raise Refused("format", "a head's field is out of range")
        form = r.uint(1)
        if form == 0:
            pieces(8)
        elif form == 1:
            m["manifest"] = r.take(16).hex()
            r.uint(4)
        elif form == 2:
            m["stolen"] = True
        else:
            raise Refused("format", "unknown form")
    elif kind == "manifest":
        pieces(2048)
    elif kind == "delta":
        m["gc"], m["fingerprint"] = 60 * r.uint(4), r.take(32).hex()
        ops()
    elif kind == "segment":
        m["slot"], m["from"] = r.uvarint(MAX_SLOT), r.uvarint()
        m["to"] = m["from"] + r.uvarint(2**64 - 1 - m["from"])
        m["gc"] = 60 * r.uint(4)
        ops()
    elif kind == "chunk":
        m["slot"] = r.uvarint(MAX_SLOT)
        put("lo", r.text(21).hex())
        put("hi", r.text(21).hex())
        ops(False)
    elif kind == "dispute":
        ops(False)
    elif kind == "card":
        for name, most in (("name", 64), ("contact", 256), ("criteria", 256)):
            put(name, r.line(most))
        successor = r.take(16)
        if any(successor):
            m["successor"] = base32(successor)
        nodes = []
        for _ in range(r.uvarint(256)):
            key = r.take(32)
            nodes.append({"node": node_of(key), "key": key.hex(), "from": r.uint(4), "until": r.uint(4)})
        put("nodes", nodes)
        put("revoked", [{"node": base32(r.take(10)), "since": r.uint(4)} for _ in range(r.uvarint(256))])
    elif kind == "trust":
        put("trusted", trusted(r))
    elif kind == "topics":
        put("text", r.line(MAX_CARD))
    elif kind == "list":
        for name, most in (("name", 64), ("contact", 300), ("criteria", 300)):
            put(name, r.line(most))
        put("listed", listed(r))
    if m.get("slot", place["slot"]) != place["slot"]:
        raise Refused("misplaced", "another slot")


def trusted(r):
    """Reads a trust list; the high bit of a weight says that the list is followed in turn."""
    out, last = [], b""
    for _ in range(r.uvarint(1024)):
        operator, weight, name = r.take(16), r.uint(1), r.line(64)
        if operator <= last or weight & 0x7F > 100:
            raise Refused("format", "operators out of order, or a weight above 100")
        one, last = {"operator": base32(operator), "weight": weight & 0x7F, "name": name}, operator
        if weight & 0x80:
            one["follows"] = True
        out.append(one)
    return out


def listed(r):
    """Reads the wallets of a list."""
    out, last = [], b""
    for _ in range(r.uvarint(1024)):
        wallet = r.take(20)
        if wallet <= last:
            raise Refused("format", "wallets out of order")
        one, last = {"wallet": "0x" + wallet.hex()}, wallet
        for name in ("note", "evidence"):
            text = r.line(300)
            if text:
                one[name] = text
        out.append(one)
    return out


def check_login(v):
    b = base64.urlsafe_b64decode(v["password"] + "=" * (-len(v["password"]) % 4))
    r = Reader(b[64:])
    if r.take(12) != b"BMSH login 1":
        return False
    operator, key, expires, broker = base32(r.take(16)), r.take(32), r.uint(4), r.line(253)
    r.end()
    return (operator == v["user"] and node_of(key) == v["client"] and broker == v["broker"]
            and v["at"] <= expires <= v["at"] + 1200 and verify(key, b[:64], b[64:]))


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        # Capitals in wallets are the checksum of EIP-55, which is no part of the protocol.
        doc = json.loads(re.sub(r"0x[0-9a-fA-F]{40}\b", lambda m: m[0].lower(), f.read()))
    faults = 0
    for v in doc["vectors"]:
        try:
            got, refused = read(v["topic"], bytes.fromhex(v["payload"])), ""
        except Refused as e:
            got, refused = None, e.args[0]
        if refused != v.get("refused", "") or got != v.get("message"):
            faults += 1
            print(f"{v['name']}: got {refused or json.dumps(got, sort_keys=True)}\n  want {v.get('refused') or json.dumps(v.get('message'), sort_keys=True)}")
    for s in doc["states"]:
        entries = [entry(c) for c in s["claims"]]
        got = fingerprint(entries).hex()
        if claims(entries) != s["claims"] or entries != sorted(entries) or got != s["fingerprint"]:
            faults += 1
            print(f"{s['meaning']}: fingerprint {got}, want {s['fingerprint']}")
    for v in doc["logins"]:
        if check_login(v) != v["good"]:
            faults += 1
            print(f"login, {v['meaning']}: want {v['good']}")
    print(f"{len(doc['vectors'])} messages, {len(doc['states'])} states and {len(doc['logins'])} logins: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
