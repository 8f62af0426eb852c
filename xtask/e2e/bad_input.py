"""What a hostile or broken client sends: `python bad_input.py URL NAME=MODULE...`.

Each case must get the documented HTTP status or reject, and the server must go on answering. Prints `ok ...` or `FAIL ...`.
"""

import socket
import sys
import time
from collections.abc import Mapping

import cbor2

from wire import (
    ANONYMOUS,
    CALL_FIRST,
    ENDLESS,
    MANAGEMENT,
    MINUTE,
    UNREACHABLE,
    Key,
    Server,
    candid,
    content,
    encode,
    hash_of,
    principal_text,
    signed,
    wasm,
)

EMPTY = candid()
BODY_BYTES_MAX = 5 << 20


class Failure(Exception):
    pass


class Suite:
    def __init__(self, url, module):
        self.server = Server(url)
        self.key = Key()
        self.module = module
        self.failures = 0

    # ---- requests that are right ----

    def call(self, canister, method, argument=EMPTY, key="own", target=None, expires_in=3 * MINUTE, version="v3"):
        """Sends an update call; gives its request id and the answer."""
        key = self.key if key == "own" else key
        sender = ANONYMOUS if key is None else key.principal
        request = content("call", sender, expires_in, canister_id=canister, method_name=method, arg=argument)
        target = canister if target is None else target
        return hash_of(request), self.server.post("call", target, encode(signed(request, key)), version)

    def query(self, canister, method, argument=EMPTY, target=None):
        request = content("query", self.key.principal, canister_id=canister, method_name=method, arg=argument)
        return self.server.post("query", canister if target is None else target, encode(signed(request, self.key)))

    def manage(self, canister, method, argument, key="own"):
        return self.call(MANAGEMENT, method, candid(argument), key, target=canister)

    def create(self, cycles=None):
        request_id, answer = self.manage(
            MANAGEMENT, "provisional_create_canister_with_cycles", {"amount": ("opt nat", cycles)}
        )
        reply = answer.reply_of(request_id) if isinstance(answer.value, Mapping) else None
        if reply is None:
            raise Failure(f"create: {answer}")
        # The reply ends in the bytes of the only thing it holds, an id of ten bytes.
        return reply[-10:]

    def install(self, canister, module, key="own"):
        argument = {"mode": ("variant", "install"), "canister_id": ("principal", canister), "wasm_module": module, "arg": b""}
        return self.manage(canister, "install_code", argument, key)

    def deploy(self, module):
        canister = self.create()
        request_id, answer = self.install(canister, module)
        if answer.status != 200 or answer.reject_of(request_id):
            raise Failure(f"install: {answer.reject_of(request_id) or answer}")
        return canister

    # ---- verdicts ----

    def step(self, name, action):
        started = time.monotonic()
        try:
            value = action()
            healthy = self.server.request("GET", "/api/v2/status")
            if healthy.status != 200 or healthy.value.get("replica_health_status") != "healthy":
                raise Failure(f"afterwards the status is {healthy}")
            print(f"ok {name} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
            return value
        except Exception as error:  # a failed step is a result, whatever failed
            print(f"FAIL {name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
            self.failures += 1
            return None

    def status(self, name, expected, send):
        def check():
            answer = send()
            if answer.status not in expected:
                raise Failure(f"expected {expected}, got {answer}")

        self.step(name, check)

    def reject(self, name, code, errors, send):
        """`errors` are the admissible IC0nnn codes."""

        def check():
            request_id, answer = send()
            reject = answer.reject_of(request_id)
            if reject is None:
                raise Failure(f"no reject: {answer}")
            if reject[0] != code or (reject[1] and reject[1] not in errors):
                raise Failure(f"expected reject {code} {errors}, got {reject}")

        self.step(name, check)


def envelopes(suite, canister):
    """Requests that are no requests, or nobody's."""
    server, key = suite.server, suite.key
    path = f"/api/v3/canister/{principal_text(canister)}/call"

    def call_with(**changes):
        return content("call", key.principal, canister_id=canister, method_name="inc", arg=EMPTY, **changes)

    good = encode(signed(call_with(), key))
    suite.status("no body", {400}, lambda: server.request("POST", path, b""))
    suite.status("not CBOR", {400}, lambda: server.request("POST", path, b"\xff" * 100))
    suite.status("CBOR, but not an envelope", {400}, lambda: server.request("POST", path, cbor2.dumps([1, 2, 3])))

    def truncated():
        for size in range(1, len(good), 7):
            answer = server.request("POST", path, good[:size])
            if answer.status != 400:
                raise Failure(f"{size} of {len(good)} bytes: {answer}")

    suite.step("truncated CBOR, at every seventh byte", truncated)
    nested = b"\x81" * 100_000
    suite.status("CBOR nested 100,000 deep", {400}, lambda: server.request("POST", path, nested))
    claims = b"\xd9\xd9\xf7\xa1\x67content\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"
    suite.status("CBOR that claims 2^63 bytes", {400}, lambda: server.request("POST", path, claims))
    no_method = call_with()
    del no_method["method_name"]
    suite.status("a field is missing", {400}, lambda: server.request("POST", path, encode(signed(no_method, key))))
    query = content("query", key.principal, canister_id=canister, method_name="get", arg=EMPTY)
    suite.status("a query at the call endpoint", {400}, lambda: server.request("POST", path, encode(signed(query, key))))

    def altered(change):
        envelope = signed(call_with(), key)
        change(envelope)
        return server.request("POST", path, encode(envelope))

    suite.status("one bit of the signature flipped", {400, 403}, lambda: altered(flip_signature))
    suite.status("content changed after signing", {400, 403}, lambda: altered(lambda e: e["content"].update(arg=b"x")))
    suite.status("signed by another key", {400, 403}, lambda: altered(lambda e: e.update(sender_pubkey=Key().der)))
    suite.status("no signature", {400, 403}, lambda: altered(lambda e: e.pop("sender_sig")))
    suite.status("a key that is no key", {400, 403}, lambda: altered(lambda e: e.update(sender_pubkey=b"\x30\x03abc")))
    other = Key()
    stolen = content("call", other.principal, canister_id=canister, method_name="inc", arg=EMPTY)
    suite.status("sender is somebody else", {400, 403}, lambda: server.request("POST", path, encode(signed(stolen, key))))
    expired = call_with(expires_in=-MINUTE)
    suite.status("expired", {400}, lambda: server.request("POST", path, encode(signed(expired, key))))
    future = call_with(expires_in=30 * MINUTE)
    suite.status("expiry in half an hour", {400}, lambda: server.request("POST", path, encode(signed(future, key))))
    nonce = call_with(nonce=b"n" * 33)
    suite.status("nonce of 33 bytes", {400}, lambda: server.request("POST", path, encode(signed(nonce, key))))


def flip_signature(envelope):
    signature = bytearray(envelope["sender_sig"])
    signature[7] ^= 1
    envelope["sender_sig"] = bytes(signature)


def delegations(suite, canister):
    root, session = Key(), Key()

    def call_through(target, expiration):
        delegation = {"pubkey": session.der, "expiration": expiration}
        if target is not None:
            delegation["targets"] = [target]
        request = content("call", root.principal, canister_id=canister, method_name="who", arg=EMPTY)
        envelope = signed(request, session)
        envelope["sender_pubkey"] = root.der
        signature = root.sign(b"ic-request-auth-delegation", hash_of(delegation))
        envelope["sender_delegation"] = [{"delegation": delegation, "signature": signature}]
        return envelope

    def send(envelope):
        return suite.server.post("call", canister, encode(envelope))

    later, earlier = time.time_ns() + 60 * MINUTE, time.time_ns() - MINUTE
    suite.status("delegation: right", {200}, lambda: send(call_through(canister, later)))
    suite.status("delegation: expired", {400, 403}, lambda: send(call_through(canister, earlier)))
    suite.status("delegation: for another canister", {400, 403}, lambda: send(call_through(b"\x01" * 10, later)))
    forged = call_through(None, later)
    forged["sender_delegation"][0]["delegation"]["expiration"] += 1
    suite.status("delegation: changed after signing", {400, 403}, lambda: send(forged))
    long = call_through(None, later)
    long["sender_delegation"] *= 21
    suite.status("delegation: a chain of 21", {400, 403}, lambda: send(long))


def routing(suite, canister):
    """Right requests at wrong places."""
    server, nowhere = suite.server, bytes.fromhex("ffffffffffe000000101")
    suite.reject("update to an unknown canister", 3, {"IC0301"}, lambda: suite.call(nowhere, "inc"))
    suite.reject("query to an unknown canister", 3, {"IC0301"}, lambda: (b"", suite.query(nowhere, "get")))
    suite.status("update at another canister's address", {400}, lambda: suite.call(canister, "inc", target=nowhere)[1])
    suite.status("query at another canister's address", {400}, lambda: suite.query(canister, "get", target=nowhere))
    stop = candid({"canister_id": ("principal", canister)})

    def manage_elsewhere():
        request_id, answer = suite.call(MANAGEMENT, "stop_canister", stop, target=nowhere)
        if answer.status != 400 and answer.reject_of(request_id) is None:
            raise Failure(f"neither 400 nor a reject: {answer}")

    suite.step("management call at another canister's address", manage_elsewhere)
    suite.status("address that is no principal", {400, 404}, lambda: server.request("POST", "/api/v3/canister/zz-zz/call", b""))
    suite.status("no such endpoint", {404}, lambda: server.request("POST", "/api/v9/canister/aaaaa-aa/call", b""))
    suite.status("GET at a POST endpoint", {404, 405}, lambda: server.request("GET", "/api/v3/canister/aaaaa-aa/call"))
    secret = content("read_state", suite.key.principal, paths=[[b"canister", canister, b"no_such_path"]])
    suite.status(
        "read_state of a path that does not exist",
        {400, 403, 404},
        lambda: server.post("read_state", canister, encode(signed(secret, suite.key))),
    )
    request_id, _ = suite.call(canister, "inc")
    stranger = Key()
    peek = content("read_state", stranger.principal, paths=[[b"request_status", request_id]])
    suite.status(
        "read_state of somebody else's request",
        {400, 403},
        lambda: server.post("read_state", canister, encode(signed(peek, stranger))),
    )


def replays(suite, canister):
    def replay():
        before = suite.query(canister, "get").value["reply"]["arg"][-1]
        request = content("call", suite.key.principal, canister_id=canister, method_name="inc", arg=EMPTY)
        body, request_id = encode(signed(request, suite.key)), hash_of(request)
        replies = {suite.server.post("call", canister, body).reply_of(request_id) for _ in range(20)}
        after = suite.query(canister, "get").value["reply"]["arg"][-1]
        if after != before + 1 or len(replies) != 1:
            raise Failure(f"twenty times the same request: {before} became {after}, replies {replies}")

    suite.step("replayed twenty times, applied once", replay)


def permissions(suite, canister):
    """Only controllers manage; nobody is not a controller."""
    record = {"canister_id": ("principal", canister)}
    for who, key in (("anonymous", None), ("a stranger", Key())):
        for method in ("stop_canister", "uninstall_code", "delete_canister"):
            suite.reject(f"{method} by {who}", 5, {"IC0512"}, lambda m=method, k=key: suite.manage(canister, m, record, k))
        suite.reject(f"install_code by {who}", 5, {"IC0512"}, lambda k=key: suite.install(canister, suite.module, k))


def modules(suite):
    """What may not be installed, and what fails when it runs."""
    canister = suite.step("create", suite.create)
    if canister is None:
        return
    header = b"\0asm\x01\0\0\0"
    bad = {
        "empty module": b"",
        "no Wasm": b"not wasm at all",
        "truncated module": suite.module[: len(suite.module) // 2],
        "gzip of nothing": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        "unknown import": wasm([("ic0", "no_such_function")], [("canister_update a", CALL_FIRST)]),
        "import from another module": wasm([("env", "memory_thing")], [("canister_update a", CALL_FIRST)]),
        "import with another type": wasm([("ic0", "msg_caller_size")], [("canister_update a", CALL_FIRST)]),
        "unknown canister_ export": wasm([], [("canister_thing", b"")]),
        "update and query of one name": wasm([], [("canister_update a", b""), ("canister_query a", b"")]),
        "ill-typed code": wasm([], [("canister_update a", b"\x6a")]),
        "unknown section": header + b"\x7f\x00",
    }
    for label, module in bad.items():
        suite.reject(f"install: {label}", 5, {"IC0505", "IC0521"}, lambda m=module: suite.install(canister, m))
    suite.reject(
        "install: init traps", 5, {"IC0502"}, lambda: suite.install(canister, wasm([], [("canister_init", UNREACHABLE)]))
    )
    exports = [("canister_update trap", UNREACHABLE), ("canister_update loop", ENDLESS), ("canister_query loops", ENDLESS)]
    exports += [("canister_update silent", b"")]
    runner = suite.step("deploy what fails", lambda: suite.deploy(wasm([], exports)))
    if runner is None:
        return
    suite.reject("trap", 5, {"IC0502"}, lambda: suite.call(runner, "trap"))
    suite.reject("no reply", 5, {"IC0506"}, lambda: suite.call(runner, "silent"))
    suite.reject("no such method", 5, {"IC0536"}, lambda: suite.call(runner, "nothing"))
    suite.reject("endless query", 5, {"IC0522"}, lambda: (b"", suite.query(runner, "loops")))
    endless(suite, runner)
    poor = suite.step("create with few cycles", lambda: suite.create(1_000_000))
    if poor is not None:
        suite.reject("install without cycles", 2, {"IC0207"}, lambda: suite.install(poor, suite.module))


def endless(suite, runner):
    """Outlasts the wait of the call endpoint perhaps; then its status is polled."""

    def check():
        request_id, answer = suite.call(runner, "loop")
        deadline = time.monotonic() + 60
        while answer.reject_of(request_id) is None and time.monotonic() < deadline:
            time.sleep(0.5)
            paths = content("read_state", suite.key.principal, paths=[[b"request_status", request_id]])
            answer = suite.server.post("read_state", runner, encode(signed(paths, suite.key)))
        reject = answer.reject_of(request_id)
        if reject is None or reject[0] != 5 or reject[1] not in ("", "IC0522"):
            raise Failure(f"expected IC0522, got {reject or answer}")

    suite.step("endless update", check)


def sizes(suite, canister):
    server = suite.server
    path = f"/api/v3/canister/{principal_text(canister)}/call"

    def oversized():
        # The server may answer and close before it has read everything.
        try:
            answer = server.request("POST", path, b"\0" * (BODY_BYTES_MAX + 1))
        except (BrokenPipeError, ConnectionResetError):
            return
        if answer.status != 413:
            raise Failure(f"expected 413, got {answer}")

    suite.step("body over 5 MiB", oversized)

    def announced():
        with server.socket() as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n".encode())
            if b" 413 " not in connection.recv(4096):
                raise Failure("no 413 for an announced body of 100 GB")

    suite.step("body of 100 GB announced", announced)
    big = content("call", suite.key.principal, canister_id=canister, method_name="put", arg=b"\0" * (3 << 20))
    suite.status(
        "argument over 2 MiB", {400, 413}, lambda: server.post("call", canister, encode(signed(big, suite.key)))
    )
    suite.status("header of 1 MB", {400, 431}, lambda: headers(server, b"x-a: " + b"y" * 1_000_000 + b"\r\n"))
    suite.status("10,000 headers", {400, 431}, lambda: headers(server, b"a: b\r\n" * 10_000))


def headers(server, extra):
    """Sends a request with those header lines; the server may stop reading at its bound."""
    from wire import Answer

    with server.socket() as connection:
        try:
            connection.sendall(b"GET /api/v2/status HTTP/1.1\r\nhost: x\r\n" + extra + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            line = connection.recv(4096)
        except ConnectionResetError:
            return Answer(431, b"")
        return Answer(int(line.split()[1]) if line else 431, line)


def connections(suite, canister):
    server = suite.server
    body = encode(signed(content("query", suite.key.principal, canister_id=canister, method_name="get", arg=EMPTY), suite.key))
    path = f"/api/v3/canister/{principal_text(canister)}/query"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    def slow():
        """A byte now and then on many connections, while others are served as ever."""
        lazy = [server.socket() for _ in range(100)]
        try:
            for byte in head[:20]:
                for connection in lazy:
                    connection.sendall(bytes([byte]))
                answer = server.request("POST", path, body, timeout=5)
                if answer.status != 200:
                    raise Failure(f"a request beside slow ones: {answer}")
        finally:
            for connection in lazy:
                connection.close()

    def in_pieces():
        with server.socket() as connection:
            for byte in head + body:
                connection.sendall(bytes([byte]))
            answer = connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise Failure(f"a request in single bytes: {answer[:100]!r}")

    def half_closed():
        with server.socket() as connection:
            connection.sendall(head + body)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
            if answer and not answer.startswith(b"HTTP/1.1 200"):
                raise Failure(f"a half-closed connection: {answer[:100]!r}")

    def abandoned():
        for cut in (10, len(head) - 1, len(head) + 5):
            for _ in range(50):
                connection = server.socket()
                connection.sendall((head + body)[:cut])
                connection.close()

    def pipelined():
        with server.socket() as connection:
            connection.sendall((head + body) * 3)
            connection.settimeout(10)
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 3:
                part = connection.recv(65536)
                if not part:
                    raise Failure(f"three requests at once: {answer.count(b'HTTP/1.1 200')} answers")
                answer += part

    def garbage():
        for line in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5 + b"\r\n\r\n"):
            with server.socket() as connection:
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                try:
                    answer = connection.recv(4096)
                except ConnectionResetError:
                    continue
                if answer and b" 400 " not in answer:
                    raise Failure(f"garbage: {answer[:100]!r}")

    suite.step("connections: 100 slow ones", slow)
    suite.step("connections: a request byte by byte", in_pieces)
    suite.step("connections: half-closed", half_closed)
    suite.step("connections: abandoned in the middle", abandoned)
    suite.step("connections: three requests at once", pipelined)
    suite.step("connections: no HTTP", garbage)


def main():
    url, *named = sys.argv[1:]
    with open(named[0].split("=", 1)[1], "rb") as file:
        module = file.read()
    suite = Suite(url, module)
    canister = suite.step("deploy the C application", lambda: suite.deploy(module))
    if canister is None:
        return 1
    envelopes(suite, canister)
    delegations(suite, canister)
    routing(suite, canister)
    replays(suite, canister)
    permissions(suite, canister)
    modules(suite)
    sizes(suite, canister)
    connections(suite, canister)

    def unharmed():
        request_id, answer = suite.call(canister, "inc")
        if answer.reply_of(request_id) is None:
            raise Failure(f"{answer}")

    suite.step("after all that, a call", unharmed)
    return 1 if suite.failures else 0


if __name__ == "__main__":
    sys.exit(main())
