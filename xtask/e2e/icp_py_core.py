"""The end-to-end scenario through icp-py-core: `python icp_py_core.py URL NAME=MODULE...`.

Prints `ok ...` or `FAIL ...` per step and asks for restarts with `@restart` and `@kill MILLISECONDS`, answered by a URL on
standard input. Certificates are verified when the library's optional BLS module is there; the other clients always verify.
"""

import hashlib
import importlib.util
import sys
import threading
import time

from icp_core import Agent, Client, Identity, Principal, ReplicaReject, Types, decode, encode
from icp_identity.identity import DelegateIdentity
import cbor2

VERIFY = importlib.util.find_spec("blst") is not None
CHUNKED_FROM = 1_850_000
CHUNK = 1 << 20
T = Types
BLOB = T.Vec(T.Nat8)
TARGET = T.Record({"canister_id": T.Principal})
SETTINGS = T.Record({"controllers": T.Opt(T.Vec(T.Principal)), "freezing_threshold": T.Opt(T.Nat)})
MODE = T.Variant(
    {
        "install": T.Null,
        "upgrade": T.Opt(
            T.Record(
                {
                    "skip_pre_upgrade": T.Opt(T.Bool),
                    "wasm_memory_persistence": T.Opt(T.Variant({"keep": T.Null, "replace": T.Null})),
                }
            )
        ),
    }
)
STATUS = T.Record(
    {
        "status": T.Variant({"running": T.Null, "stopping": T.Null, "stopped": T.Null}),
        "settings": T.Record({"freezing_threshold": T.Nat}),
        "module_hash": T.Opt(BLOB),
        "cycles": T.Nat,
    }
)


class Session:
    def __init__(self, url):
        self.identity = Identity()
        self.failures = 0
        self.connect(url)
        self.root_key = bytes(cbor2.loads(self.agent.client.status())["root_key"])
        self.connect(url)

    def connect(self, url):
        self.url = url
        self.agent = self.agent_for(self.identity)

    def agent_for(self, identity):
        agent = Agent(identity, Client(self.url))
        agent.root_key = getattr(self, "root_key", agent.root_key)
        return agent

    def ask(self, request):
        print(request, flush=True)
        self.connect(sys.stdin.readline().strip())

    def step(self, name, action):
        started = time.monotonic()
        try:
            value = action()
            print(f"ok {name} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
            return True if value is None else value
        except Exception as error:  # a failed step is a result, whatever failed
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {name}: {text}", flush=True)
            self.failures += 1
            return None


def arguments(*typed):
    return encode([{"type": kind, "value": value} for kind, value in typed])


def value_of(answer):
    """The only result of a method: the library gives a list of values, with their types or without."""
    if not answer:
        return None
    return answer[0]["value"] if isinstance(answer[0], dict) and "value" in answer[0] else answer[0]


def update(agent, canister, method, *typed, result=None, effective=None):
    returned = agent.update_raw(
        canister,
        method,
        arguments(*typed),
        return_type=None if result is None else [result],
        effective_canister_id=effective,
        verify_certificate=VERIFY,
    )
    return value_of(returned)


def query(agent, canister, method, *typed, result=None):
    returned = agent.query_raw(
        canister,
        method,
        arguments(*typed),
        return_type=None if result is None else [result],
        verify_query_signatures=VERIFY,
    )
    return value_of(returned)


def manage(agent, canister, method, kind, value, result=None):
    return update(agent, "aaaaa-aa", method, (kind, value), result=result, effective=canister)


def text(principal):
    return principal if isinstance(principal, str) else principal.to_str()


def as_bytes(blob):
    return blob if isinstance(blob, bytes) else bytes(blob)


def optional(value):
    """An opt value: the library gives a list of none or one."""
    return value[0] if isinstance(value, list) and value else (value or None)


def install(agent, canister, module, mode):
    if len(module) < CHUNKED_FROM:
        kind = T.Record({"mode": MODE, "canister_id": T.Principal, "wasm_module": BLOB, "arg": BLOB})
        value = {"mode": mode, "canister_id": canister, "wasm_module": module, "arg": b""}
        manage(agent, canister, "install_code", kind, value)
        return
    hashes = []
    for at in range(0, len(module), CHUNK):
        chunk = module[at : at + CHUNK]
        kind = T.Record({"canister_id": T.Principal, "chunk": BLOB})
        manage(agent, canister, "upload_chunk", kind, {"canister_id": canister, "chunk": chunk})
        hashes.append({"hash": hashlib.sha256(chunk).digest()})
    kind = T.Record(
        {
            "mode": MODE,
            "target_canister": T.Principal,
            "chunk_hashes_list": T.Vec(T.Record({"hash": BLOB})),
            "wasm_module_hash": BLOB,
            "arg": BLOB,
        }
    )
    value = {
        "mode": mode,
        "target_canister": canister,
        "chunk_hashes_list": hashes,
        "wasm_module_hash": hashlib.sha256(module).digest(),
        "arg": b"",
    }
    manage(agent, canister, "install_chunked_code", kind, value)


def deploy(agent, module):
    kind = T.Record({"amount": T.Opt(T.Nat), "settings": T.Opt(SETTINGS)})
    value = {"amount": [], "settings": []}
    created = update(agent, "aaaaa-aa", "provisional_create_canister_with_cycles", (kind, value), result=TARGET)
    canister = text(created["canister_id"])
    install(agent, canister, module, {"install": None})
    return canister


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def expect_reject(action, code, expected):
    try:
        action()
    except ReplicaReject as reject:
        check(reject.reject_code == code, f"reject code {reject.reject_code}: {reject.reject_message}")
        check(expected in reject.reject_message, f"reject message: {reject.reject_message}")
        return
    raise AssertionError("the call went through")


def known_as_itself(session, canister, identity):
    agent = session.agent_for(identity)
    expected = identity.sender().to_str()
    for answer in (update(agent, canister, "who"), query(agent, canister, "who_query")):
        check(text(answer) == expected, f"known as {text(answer)}, not {expected}")


def identities(session, modules):
    canister = session.step("deploy the C application", lambda: deploy(session.agent, modules[0][1]))
    if canister is None:
        return
    for name in ("ed25519", "secp256k1", "p256"):
        session.step(f"identity: {name}", lambda name=name: known_as_itself(session, canister, Identity(type=name)))
    session.step(
        "identity: delegation", lambda: known_as_itself(session, canister, delegated(Identity(type="secp256k1")))
    )
    session.step("identity: anonymous", lambda: known_as_itself(session, canister, Identity(anonymous=True)))


def leb128(number):
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(encoded) + bytes([number])


def hash_of(value):
    """The representation-independent hash of the interface specification."""
    if isinstance(value, dict):
        entries = sorted(hash_of(key) + hash_of(entry) for key, entry in value.items())
        return hashlib.sha256(b"".join(entries)).digest()
    if isinstance(value, list):
        return hashlib.sha256(b"".join(map(hash_of, value))).digest()
    if isinstance(value, int):
        value = leb128(value)
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()


def delegated(root):
    """A session key that may sign for `root`, for an hour."""
    key = Identity()
    delegation = {"expiration": time.time_ns() + 3600 * 10**9, "pubkey": bytes(key.der_pubkey)}
    _, signature = root.sign(b"\x1aic-request-auth-delegation" + hash_of(delegation))
    written = {**delegation, "pubkey": delegation["pubkey"].hex()}
    chain = {
        "delegations": [{"delegation": written, "signature": bytes(signature).hex()}],
        "publicKey": bytes(root.der_pubkey).hex(),
    }
    return DelegateIdentity(key, chain)


def read_state(session, canister, module):
    label = Principal.from_str(canister).bytes
    paths = [[b"canister", label, b"module_hash"], [b"canister", label, b"controllers"]]
    certificate = session.agent.read_state_raw(canister, paths, verify_certificate=VERIFY)
    check(certificate.lookup(paths[0]) == hashlib.sha256(module).digest(), "module_hash is another one")
    controllers = [bytes(controller) for controller in cbor2.loads(certificate.lookup(paths[1]))]
    check(controllers == [session.identity.sender().bytes], f"controllers are {controllers}")
    path = [b"canister", label, b"metadata", b"candid:service"]
    certificate = session.agent.read_state_raw(canister, [path], verify_certificate=VERIFY)
    check(b"call_failing" in certificate.lookup(path), "metadata is not the interface")


def updates_and_queries(agent, canister):
    for expected in (1, 2, 3):
        check(update(agent, canister, "inc") == expected, "inc answered another count")
        check(query(agent, canister, "get") == expected, "get answered another count")
    update(agent, canister, "put", (T.Text, "key"), (T.Text, "välue"))
    check(optional(query(agent, canister, "lookup", (T.Text, "key"))) == "välue", "lookup found something else")
    check(optional(query(agent, canister, "lookup", (T.Text, "other"))) is None, "lookup found something")
    check(update(agent, canister, "note", (T.Text, "first")) == 0, "note answered another position")


def failures(agent, canister):
    expect_reject(lambda: update(agent, canister, "fail_trap"), 5, "trapped on request")
    check(query(agent, canister, "get") == 3, "a trap was not undone")
    expect_reject(lambda: update(agent, canister, "fail_reject"), 4, "rejected on request")
    check(query(agent, canister, "get") == 4, "a reject was undone")
    expect_reject(lambda: query(agent, canister, "no_such_method"), 5, "no_such_method")


def upgrade(agent, canister, name, module):
    persistence = [{"keep": None}] if name == "motoko64" else []
    mode = {"upgrade": [{"skip_pre_upgrade": [], "wasm_memory_persistence": persistence}]}
    install(agent, canister, module, mode)
    check(query(agent, canister, "get") == 4, "the counter is another one")
    check(optional(query(agent, canister, "lookup", (T.Text, "key"))) == "välue", "lookup found something else")
    check(update(agent, canister, "note", (T.Text, "second")) == 1, "note answered another position")
    check(query(agent, canister, "notes") == ["first", "second"], "notes are others")


def calls(agent, canister, other):
    before = query(agent, other, "get")
    check(update(agent, canister, "call_other", (T.Principal, other)) == before + 1, "call_other answered another count")
    message = update(agent, canister, "call_failing", (T.Principal, other))
    check("trapped on request" in message, f"call_failing answered {message}")
    check(len(as_bytes(update(agent, canister, "random"))) == 32, "random is not 32 bytes")


def every_toolchain(session, modules):
    agent, other = session.agent, None
    for name, module in modules:
        canister = session.step(f"{name}: create and install", lambda: deploy(agent, module))
        if canister is None:
            continue
        other = other or canister
        session.step(f"{name}: read_state", lambda: read_state(session, canister, module))
        session.step(f"{name}: updates and queries", lambda: updates_and_queries(agent, canister))
        session.step(f"{name}: trap and reject", lambda: failures(agent, canister))
        session.step(f"{name}: upgrade keeps the state", lambda: upgrade(agent, canister, name, module))
        session.step(f"{name}: calls to another canister", lambda: calls(agent, canister, other))


def lifecycle(session, modules):
    agent = session.agent
    canister = session.step("lifecycle: deploy", lambda: deploy(agent, modules[0][1]))
    if canister is None:
        return
    target = {"canister_id": canister}

    def settings():
        kind = T.Record({"canister_id": T.Principal, "settings": SETTINGS})
        value = {"canister_id": canister, "settings": {"controllers": [], "freezing_threshold": [12345]}}
        manage(agent, canister, "update_settings", kind, value)
        status = manage(agent, canister, "canister_status", TARGET, target, result=STATUS)
        check(status["settings"]["freezing_threshold"] == 12345, f"the status is {status}")
        check("running" in status["status"], f"the status is {status}")

    def stop_and_start():
        manage(agent, canister, "stop_canister", TARGET, target)
        expect_reject(lambda: update(agent, canister, "inc"), 5, "stopped")
        manage(agent, canister, "start_canister", TARGET, target)
        check(update(agent, canister, "inc") == 1, "inc answered another count")

    def delete():
        manage(agent, canister, "stop_canister", TARGET, target)
        manage(agent, canister, "delete_canister", TARGET, target)
        expect_reject(lambda: query(agent, canister, "get"), 3, "not found")

    session.step("lifecycle: settings and status", settings)
    session.step("lifecycle: stop and start", stop_and_start)
    session.step("lifecycle: delete", delete)


def restart(session, modules):
    canisters = []

    def prepare():
        for name, module in modules:
            canister = deploy(session.agent, module)
            update(session.agent, canister, "inc")
            canisters.append((name, canister))

    def as_it_was(canister):
        check(update(session.agent, canister, "inc") == 2, "inc answered another count")

    session.step("restart: prepare", prepare)
    if session.step("restart: clean stop and start", lambda: session.ask("@restart")) is None:
        return
    for name, canister in canisters:
        session.step(f"restart: {name} is as it was", lambda canister=canister: as_it_was(canister))


def kill_under_load(session, modules):
    """Several clients note numbered texts while the replica is killed."""
    canister = session.step("kill: deploy", lambda: deploy(session.agent, modules[0][1]))
    if canister is None:
        return
    acknowledged = []

    def load(client, agent):
        for sequence in range(100_000):
            note = f"{client}/{sequence}"
            try:
                acknowledged.append((note, update(agent, canister, "note", (T.Text, note))))
            except Exception:  # the replica is gone, which ends the load
                return

    for client in range(4):
        agent = session.agent_for(Identity())
        threading.Thread(target=load, args=(client, agent), daemon=True).start()
    if session.step("kill: load, kill -9, recovery", lambda: session.ask("@kill 1500")) is None:
        return

    def all_there():
        check(len(acknowledged) > 0, "nothing was acknowledged before the kill")
        notes = query(session.agent, canister, "notes")
        check(len(set(notes)) == len(notes), "a text was applied twice")
        for note, position in list(acknowledged):
            check(notes[position] == note, f"{note} was acknowledged at {position}, there is {notes[position]}")

    print(f"   {len(acknowledged)} updates were acknowledged before the kill", flush=True)
    session.step("kill: every acknowledged update is there, none twice", all_there)


def main():
    url, *named = sys.argv[1:]
    modules = []
    for argument in named:
        name, path = argument.split("=", 1)
        with open(path, "rb") as file:
            modules.append((name, file.read()))
    session = Session(url)
    print(f"   certificates are {'verified' if VERIFY else 'not verified: this library needs a BLS module for it'}")
    identities(session, modules)
    every_toolchain(session, modules)
    lifecycle(session, modules)
    restart(session, modules)
    kill_under_load(session, modules)
    return 1 if session.failures else 0


if __name__ == "__main__":
    sys.exit(main())
