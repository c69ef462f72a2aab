#!/usr/bin/env python3
"""A second implementation of the datagrams in docs/protocol.md, from that page alone.

Checks that the datagrams in messages.txt, and the check of its key file, are what the page says they
are; with --write puts them there. Uses nothing but Python's standard library: ChaCha20, HChaCha20 and Poly1305 are written out
from RFC 8439 and draft-irtf-cfrg-xchacha-03, and tested with the examples given there.
"""

import hashlib
import hmac
import struct
import sys
from pathlib import Path

FILE = Path(__file__).with_name("messages.txt")

# --- RFC 8439, section 2.3 and draft-irtf-cfrg-xchacha, section 2.2


def chacha_rounds(state):
    w = list(state)

    def quarter(a, b, c, d):
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            w[x] = (w[x] + w[y]) & 0xFFFFFFFF
            w[z] ^= w[x]
            w[z] = ((w[z] << turn) | (w[z] >> (32 - turn))) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return w


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def chacha_block(key, counter, nonce):
    state = [*CONSTANTS, *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    rounds = chacha_rounds(state)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, rounds)))


def hchacha(key, nonce16):
    w = chacha_rounds([*CONSTANTS, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce16)])
    return struct.pack("<8I", *w[0:4], *w[12:16])


def chacha(key, counter, nonce, data):
    out = bytearray()
    for i in range(0, len(data), 64):
        stream = chacha_block(key, counter + i // 64, nonce)
        out += bytes(a ^ b for a, b in zip(data[i : i + 64], stream))
    return bytes(out)


# --- RFC 8439, sections 2.5 and 2.8


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        total += int.from_bytes(message[i : i + 16] + b"\x01", "little")
        total = total * r % ((1 << 130) - 5)
    total += int.from_bytes(key[16:], "little")
    return (total & ((1 << 128) - 1)).to_bytes(16, "little")


def seal(key, nonce, header, body):
    """ChaCha20-Poly1305 with 12 bytes of nonce, XChaCha20-Poly1305 with 24."""
    if len(nonce) == 24:
        key, nonce = hchacha(key, nonce[:16]), bytes(4) + nonce[16:]
    sealed = chacha(key, 1, nonce, body)
    pad = lambda b: b + bytes(-len(b) % 16)
    lengths = struct.pack("<QQ", len(header), len(sealed))
    tag = poly1305(chacha_block(key, 0, nonce)[:32], pad(header) + pad(sealed) + lengths)
    return header + sealed + tag


# --- RFC 5869 for one block of output


def hkdf(salt, secret, info):
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


# --- CRC-32C of a key file: RFC 3720, appendix B.4, has the examples


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# --- docs/protocol.md

# The fields of each body in order: an integer of so many bytes, or bytes.
TYPES = {
    "hello": 1,
    "challenge": 2,
    "join": 3,
    "welcome": 4,
    "probe": 16,
    "reply": 17,
    "order": 32,
    "report": 33,
    "stream": 34,
    "load": 40,
    "load_down": 40,
    "train": 48,
    "train_down": 48,
    "train_ask": 49,
    "train_report": 50,
}
# Whose key seals what is not sealed with the knock key.
KEYS = {"probe": "up", "reply": "down", "order": "up", "report": "down", "stream": "test"}
KEYS |= {"load": "load up", "load_down": "load down"}
KEYS |= {"train": "up", "train_down": "down", "train_ask": "up", "train_report": "down"}
BODIES = {
    "hello": [("client_random", 32), ("zeros", 48)],
    "challenge": [("client_random", 32), ("cookie_time_ns", 8), ("cookie_hash", 16)],
    "join": [
        ("client_random", 32),
        ("cookie_time_ns", 8),
        ("cookie_hash", 16),
        ("instance", 8),
        ("zeros", 16),
    ],
    "welcome": [
        ("client_random", 32),
        ("server_random", 32),
        ("boot", 8),
        ("session", 4),
        ("zeros", 4),
    ],
    "probe": [
        ("stream", 2),
        ("zeros", 6),
        ("number", 8),
        ("sent_ns", 8),
        ("earlier_number", 8),
        ("earlier_tx_ns", 8),
        ("want", 8),
    ],
    "reply": [
        ("stream", 2),
        ("flags", 2),
        ("ttl", 1),
        ("tos", 1),
        ("clocks", 1),
        ("zeros", 1),
        ("number", 8),
        ("rx_ns", 8),
        ("residence_ns", 4),
        ("socket_drops", 4),
        ("tx_ns", 8),
        ("tx_ns_before", 8),
        ("tx_back", 2),
        ("tx_back_before", 2),
        ("received", 4),
        ("record", 8),
        ("record_back", 4),
        ("clock_epoch", 4),
        ("address", 16),
        ("port", 2),
        ("zeros", 2),
    ],
    "order": [
        ("op", 1),
        ("streams_up", 1),
        ("streams_down", 1),
        ("prefix_bits", 1),
        ("number", 4),
        ("test", 8),
        ("time_ms", 4),
        ("first_bin", 4),
        ("dscp", 8),
        ("congestion", 16),
        ("prefix", 16),
        ("up_bps", 8),
        ("down_bps", 8),
        ("datagram_size", 2),
        ("zeros", 6),
    ],
    "report": [
        ("state", 1),
        ("reason", 1),
        ("port", 2),
        ("number", 4),
        ("test", 8),
        ("wait_ms", 4),
        ("handle", 4),
        ("secret", 32),
        ("received", 8),
        ("sent", 8),
        ("retransmits", 4),
        ("rtt_us", 4),
        ("cwnd_bytes", 4),
        ("first_bin", 4),
        ("bins", 2),
        ("zeros", 2),
        ("bytes", 240),
        ("in_band", 120),
        ("datagrams", 4),
        ("again", 4),
        ("overtaken", 4),
        ("datagrams_sent", 4),
        ("sender_dropped", 4),
        ("zeros", 4),
    ],
    "stream": [("stream", 1), ("zeros", 15)],
    "load": [],
    "load_down": [],
    "train": [("train", 4), ("index", 2), ("count", 2), ("sent_ns", 4), ("zeros", 4)],
    "train_ask": [
        ("op", 1),
        ("zeros", 1),
        ("count", 2),
        ("train", 4),
        ("datagram_size", 2),
        ("first", 2),
        ("number", 4),
        ("zeros", 16),
    ],
    "train_report": [
        ("state", 1),
        ("reason", 1),
        ("arrived", 2),
        ("train", 4),
        ("number", 4),
        ("most", 2),
        ("first", 2),
        ("follow", 2),
        ("clock", 1),
        ("zeros", 1),
        ("socket_drops", 4),
        ("begin_ns", 8),
        ("arrivals", 12),
    ],
}
BODIES["train_down"] = BODIES["train"]
BYTES = {"client_random", "server_random", "cookie_hash", "address"}
BYTES |= {"dscp", "congestion", "prefix", "secret", "bytes", "in_band", "arrivals"}


def derive(section, all_sections):
    """The keys of a [key] or [session]."""
    secret = bytes.fromhex(all_sections["key"]["key"])
    if "client_random" in section:
        salt = bytes.fromhex(section["client_random"]) + bytes.fromhex(section["server_random"])
        names = ("up", "down")
    else:
        salt, names = bytes(64), ("knock",)
    return {n: hkdf(salt, secret, b"bufferbane 1 " + n.encode()) for n in names}


def cookie_hash(fields, key_id):
    address = bytes.fromhex(fields["address"]) + int(fields["port"], 0).to_bytes(2, "big")
    bound = address + int(fields["time_ns"], 0).to_bytes(8, "big")
    salt = bytes.fromhex(fields["client_random"]) + bound + bytes(32 - len(bound))
    return hkdf(salt, bytes.fromhex(fields["secret"]), key_id)[:16]


def datagram(kind, fields, keys, key_id):
    body = b""
    for name, length in BODIES[kind]:
        if name == "zeros":
            body += bytes(length)
        elif name in BYTES:
            value = bytes.fromhex(fields[name])
            body += value + bytes(length - len(value))
        else:
            body += int(fields[name], 0).to_bytes(length, "big")
    header = b"BFBN" + bytes([1, TYPES[kind], 0, 0])
    if TYPES[kind] < 16:
        nonce = bytes.fromhex(fields["nonce"])
        return seal(keys["knock"], nonce, header + key_id + nonce, body)
    counter = int(fields["counter"], 0).to_bytes(8, "big")
    body += bytes(int(fields["size"], 0) - 20 - len(body) - 16)
    header += int(fields["session"], 0).to_bytes(4, "big") + counter
    return seal(keys[KEYS[kind]], bytes(4) + counter, header, body)


def sections(text):
    """[name] and name = value, in order; values that end in a backslash go on in the next line."""
    name, out = None, []
    for line in text.replace("\\\n", "").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            name = line.strip("[]")
            out.append((name, {}))
        elif line:
            key, value = line.split("=")
            out[-1][1][key.strip()] = "".join(value.split())
    return out


def known_answers():
    unhex = bytes.fromhex
    # RFC 8439, section 2.8.2
    key, ad = bytes(range(0x80, 0xA0)), unhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    sealed = seal(key, unhex("070000004041424344454647"), ad, text)
    assert sealed[-16:] == unhex("1ae10b594f09e26a7e902ecbd0600691"), "RFC 8439"
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    sealed = seal(key, bytes(range(0x40, 0x58)), ad, text)
    assert sealed[-16:] == unhex("c0875924c1c7987947deafd8780acf49"), "xchacha"
    # RFC 5869, appendix A.1, its first 32 bytes
    made = hkdf(bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)))
    assert made == unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"), "HKDF"
    # RFC 3720, appendix B.4: 32 bytes that count up, as the number whose lowest byte is first there
    assert crc32c(bytes(range(32))) == int.from_bytes(unhex("4e79dd46"), "little"), "CRC-32C"


def fill(text):
    """The file with every derived key and datagram as the page says."""
    found = sections(text)
    by_name = dict(found)
    key_id = bytes.fromhex(by_name["key"]["id"])
    keys = {}
    want = []
    for name, fields in found:
        if name in ("key", "session"):
            made = derive(fields, by_name)
            keys.update(made)
            want.append({f"{n}_key": v.hex() for n, v in made.items()})
            if name == "key":
                want[-1]["check"] = f"{crc32c(key_id + bytes.fromhex(fields['key'])):08x}"
        elif name == "cookie":
            cookie = cookie_hash(fields, key_id).hex()
            want.append({"hash": cookie})
        else:
            kind = name.split()[0]
            if "secret" in fields:
                keys["test"] = bytes.fromhex(fields["secret"])
                for way in ("load up", "load down"):
                    info = b"bufferbane 1 " + way.encode()
                    keys[way] = hkdf(bytes(64), keys["test"], info)
            if "cookie_hash" in fields:
                fields["cookie_hash"] = cookie
            want.append({"cookie_hash": fields.get("cookie_hash"), "datagram": datagram(kind, fields, keys, key_id).hex()})
    out, at, lines = [], -1, iter(text.splitlines())
    for line in lines:
        name = line.split("=")[0].strip()
        if line.startswith("["):
            at += 1
        if at < 0 or name not in want[at]:
            out.append(line)
            continue
        while line.endswith("\\"):
            line = next(lines)
        value = want[at][name]
        rows = [value[i : i + 64] for i in range(0, len(value), 64)]
        out.append(f"{name} = " + ("\\\n    " if len(rows) > 1 else "") + "\\\n    ".join(rows))
    return "\n".join(out) + "\n"


def main():
    known_answers()
    text = FILE.read_text()
    filled = fill(text)
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(filled)
    elif filled != text:
        old, new = text.splitlines(), filled.splitlines()
        line = next((i for i, (a, b) in enumerate(zip(old, new), 1) if a != b), len(old))
        sys.exit(f"messages.txt differs from docs/protocol.md at line {line}")
    else:
        print(f"{sum(1 for n, _ in sections(text))} sections agree")


main()
