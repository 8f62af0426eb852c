"""The public HTTP interface by hand, so that requests can be wrong on purpose: envelopes, Candid arguments, small Wasm modules."""

import hashlib
import http.client
import os
import socket
import time
import urllib.parse
from collections.abc import Mapping

import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
MANAGEMENT = b""
ANONYMOUS = b"\x04"
MINUTE = 60 * 10**9


# ---- envelopes ----


def leb(number):
    out = bytearray()
    while True:
        out.append((number & 0x7F) | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def hash_of(value):
    if isinstance(value, dict):
        pairs = sorted(hash_of(key) + hash_of(inner) for key, inner in value.items())
        return hashlib.sha256(b"".join(pairs)).digest()
    if isinstance(value, list):
        return hashlib.sha256(b"".join(hash_of(inner) for inner in value)).digest()
    if isinstance(value, int):
        return hashlib.sha256(leb(value)).digest()
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()


class Key:
    def __init__(self):
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key()
        self.der = DER_PREFIX + public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.principal = hashlib.sha224(self.der).digest() + b"\x02"

    def sign(self, domain, digest):
        return self.private.sign(bytes([len(domain)]) + domain + digest)


def content(kind, sender, expires_in=3 * MINUTE, **fields):
    content = {"request_type": kind, "sender": sender, "ingress_expiry": time.time_ns() + expires_in, **fields}
    if kind == "call":
        content.setdefault("nonce", os.urandom(8))
    return content


def signed(content, key):
    """An envelope; without a key it is anonymous."""
    envelope = {"content": content}
    if key is not None:
        envelope["sender_pubkey"] = key.der
        envelope["sender_sig"] = key.sign(b"ic-request", hash_of(content))
    return envelope


def encode(envelope):
    return cbor2.dumps(cbor2.CBORTag(55799, envelope))


class Answer:
    """One HTTP answer: its status, its bytes, and what they say if they are CBOR."""

    def __init__(self, status, body):
        self.status, self.body = status, body
        try:
            decoded = cbor2.loads(body)
            self.value = decoded.value if isinstance(decoded, cbor2.CBORTag) else decoded
        except Exception:  # words, or nothing
            self.value = None

    def reject_of(self, request_id):
        """(code, error code, message) of a refusal, or None if the call was replied to; None is also for a pending one."""
        if not isinstance(self.value, Mapping):
            return None
        if "reject_code" in self.value:
            return self.value["reject_code"], self.value.get("error_code", ""), self.value["reject_message"]
        if "certificate" not in self.value:
            return None
        tree = cbor2.loads(self.value["certificate"])
        tree = tree.value if isinstance(tree, cbor2.CBORTag) else tree
        code, error, message = (
            lookup(tree["tree"], [b"request_status", request_id, label])
            for label in (b"reject_code", b"error_code", b"reject_message")
        )
        return None if code is None else (int.from_bytes(code, "little"), (error or b"").decode(), message.decode())

    def reply_of(self, request_id):
        tree = cbor2.loads(self.value["certificate"])
        tree = tree.value if isinstance(tree, cbor2.CBORTag) else tree
        return lookup(tree["tree"], [b"request_status", request_id, b"reply"])

    def __str__(self):
        return f"{self.status} {self.value if self.value is not None else self.body[:200]!r}"[:600]


def lookup(tree, path):
    """The leaf at a path of a certificate's tree."""
    if not path:
        return tree[1] if tree[0] == 3 else None
    if tree[0] == 1:
        for side in tree[1:]:
            found = lookup(side, path)
            if found is not None:
                return found
    elif tree[0] == 2 and tree[1] == path[0]:
        return lookup(tree[2], path[1:])
    return None


class Server:
    def __init__(self, url):
        self.host, self.port = urllib.parse.urlparse(url).hostname, urllib.parse.urlparse(url).port

    def request(self, method, path, body=None, headers=None, timeout=30):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            headers = {"content-type": "application/cbor", **(headers or {})}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def socket(self):
        connection = socket.create_connection((self.host, self.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def post(self, endpoint, target, body, version="v3", scope="canister"):
        return self.request("POST", f"/api/{version}/{scope}/{principal_text(target)}/{endpoint}", body)


def principal_text(raw):
    import base64
    import zlib

    letters = base64.b32encode(zlib.crc32(raw).to_bytes(4, "big") + raw).decode().lower().rstrip("=")
    return "-".join(letters[at : at + 5] for at in range(0, len(letters), 5))


# ---- Candid: records and variants of the management canister, no more ----


def label_hash(name):
    number = 0
    for byte in name.encode():
        number = (number * 223 + byte) & 0xFFFFFFFF
    return number


def sleb(number):
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        if (number == 0 and not byte & 0x40) or (number == -1 and byte & 0x40):
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


class Candid:
    """Arguments as nested values: bytes are blobs, ("principal", raw), ("opt nat", n or None), ("variant", name), dict."""

    def __init__(self):
        self.types = []

    def add(self, entry):
        self.types.append(entry)
        return sleb(len(self.types) - 1)

    def typed(self, value):
        if isinstance(value, bytes):
            return self.add(sleb(-19) + sleb(-5)), leb(len(value)) + value
        if isinstance(value, dict):
            fields = sorted((label_hash(name), *self.typed(inner)) for name, inner in value.items())
            entry = sleb(-20) + leb(len(fields)) + b"".join(leb(label) + kind for label, kind, _ in fields)
            return self.add(entry), b"".join(bytes_ for _, _, bytes_ in fields)
        kind, inner = value
        if kind == "principal":
            return sleb(-24), b"\x01" + leb(len(inner)) + inner
        if kind == "opt nat":
            return self.add(sleb(-18) + sleb(-3)), b"\x00" if inner is None else b"\x01" + leb(inner)
        if kind == "variant":
            return self.add(sleb(-21) + leb(1) + leb(label_hash(inner)) + sleb(-1)), b"\x00"
        if kind == "text":
            return sleb(-15), leb(len(inner.encode())) + inner.encode()
        raise ValueError(kind)


def candid(*values):
    builder = Candid()
    typed = [builder.typed(value) for value in values]
    head = leb(len(builder.types)) + b"".join(builder.types) + leb(len(typed))
    return b"DIDL" + head + b"".join(kind for kind, _ in typed) + b"".join(bytes_ for _, bytes_ in typed)


# ---- Wasm: modules of one page and a few functions ----


def section(number, entries):
    body = leb(len(entries)) + b"".join(entries)
    return bytes([number]) + leb(len(body)) + body


def name(text):
    return leb(len(text.encode())) + text.encode()


def wasm(imports=(), exports=()):
    """A module of functions without parameters: `imports` are (module, name), `exports` are (name, body)."""
    functions = [leb(len(body) + 2) + b"\x00" + body + b"\x0b" for _, body in exports]
    return (
        b"\0asm\x01\0\0\0"
        + section(1, [b"\x60\x00\x00"])
        + section(2, [name(module) + name(field) + b"\x00\x00" for module, field in imports])
        + section(3, [b"\x00"] * len(functions))
        + section(5, [b"\x00\x01"])
        + section(7, [name(export) + b"\x00" + leb(len(imports) + index) for index, (export, _) in enumerate(exports)])
        + section(10, functions)
    )


UNREACHABLE = b"\x00"
# loop: memory.fill(0, 0, 65536); br 0. The fill costs an instruction a byte, so the limit is near.
ENDLESS = b"\x03\x40\x41\x00\x41\x00\x41\x80\x80\x04\xfc\x0b\x00\x0c\x00\x0b"
CALL_FIRST = b"\x10\x00"
