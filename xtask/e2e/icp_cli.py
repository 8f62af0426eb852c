"""The end-to-end scenario through the `icp` command line tool: `python3 icp_cli.py URL NAME=MODULE...`.

ICP names the executable, E2E_HOME a directory for its settings. Prints `ok ...` or `FAIL ...` per step and asks for restarts
with `@restart` and `@kill MILLISECONDS`, answered by a URL on standard input. The tool verifies certificates itself.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import zlib

ICP = os.environ["ICP"]
HOME = os.environ["E2E_HOME"]
COMMAND_SECONDS_MAX = 60


class Failure(Exception):
    pass


class Session:
    def __init__(self, url):
        self.url = url
        self.failures = 0
        shutil.rmtree(HOME, ignore_errors=True)
        os.makedirs(HOME)
        self.environment = {"PATH": os.environ["PATH"], "HOME": HOME, "DO_NOT_TRACK": "1"}
        self.icp("settings", "update-check", "false", network=False, check=False)
        self.icp("identity", "new", "--storage", "plaintext", "tester", network=False)
        self.icp("identity", "default", "tester", network=False)
        self.principal = self.icp("identity", "principal", network=False).strip()

    def icp(self, *arguments, network=True, check=True):
        """Runs the tool; gives its standard output, or both streams when it may fail."""
        command = [ICP, *arguments, *(["-n", self.url, "-k", "fetch"] if network else [])]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=HOME,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=COMMAND_SECONDS_MAX,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise Failure(f"icp {' '.join(arguments[:4])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if check else f"{done.returncode} {done.stdout}{done.stderr}"

    def call(self, canister, method, argument="()", query=False):
        flags = ["--query"] if query else []
        return self.icp("canister", "call", *flags, canister, method, argument).strip()

    def refused(self, *arguments):
        text = self.icp(*arguments, check=False)
        expect(not text.startswith("0 "), f"it succeeded: {text}")
        return text

    def ask(self, request):
        print(request, flush=True)
        self.url = sys.stdin.readline().strip()

    def step(self, name, action):
        started = time.monotonic()
        try:
            value = action()
            print(f"ok {name} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
            return True if value is None else value
        except (Failure, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            print(f"FAIL {name}: {' '.join(str(error).split())}", flush=True)
            self.failures += 1
            return None


def expect(condition, message):
    if not condition:
        raise Failure(message)


def subnet_of(url):
    """The text of the root subnet's id, which is the self-authenticating principal of the root key."""
    with urllib.request.urlopen(f"{url}/api/v2/status", timeout=10) as answer:
        status = answer.read()
    start = status.index(bytes.fromhex("308182301d060d2b0601040182dc7c05030102"))
    raw = hashlib.sha224(status[start : start + 133]).digest() + b"\x02"
    checked = zlib.crc32(raw).to_bytes(4, "big") + raw
    letters = base64.b32encode(checked).decode().lower().rstrip("=")
    return "-".join(letters[at : at + 5] for at in range(0, len(letters), 5))


def create(session):
    output = session.icp("canister", "create", "--detached", "--quiet", "--subnet", subnet_of(session.url))
    return output.strip().split()[-1]


def deploy(session, path):
    canister = create(session)
    session.icp("canister", "install", canister, "--wasm", path, "--mode", "install", "--yes")
    return canister


def status(session, canister):
    return json.loads(session.icp("canister", "status", canister, "--json"))


def read_state(session, canister, path):
    with open(path, "rb") as file:
        module_hash = hashlib.sha256(file.read()).hexdigest()
    for flags in ([], ["--public"]):
        text = session.icp("canister", "status", canister, *flags)
        expect(module_hash in text.lower(), f"the module hash is not in: {text}")
        expect(session.principal in text, f"the controller is not in: {text}")
    interface = session.icp("canister", "metadata", canister, "candid:service")
    expect("call_failing" in interface, "metadata is not the interface")


def updates_and_queries(session, canister):
    for expected in (1, 2):
        expect(f"({expected}" in session.call(canister, "inc"), "inc answered another count")
    session.call(canister, "put", '("key", "välue")')
    expect("välue" in session.call(canister, "lookup", '("key")', query=True), "lookup found something else")
    expect(session.principal in session.call(canister, "who"), "known as somebody else")
    text = session.refused("canister", "call", canister, "fail_trap", "()")
    expect("trapped on request" in text, f"the trap says {text}")
    text = session.refused("canister", "call", canister, "fail_reject", "()")
    expect("rejected on request" in text, f"the reject says {text}")
    expect("(3" in session.call(canister, "get", query=True), "the counter is another one")


def upgrade(session, canister, path):
    session.icp("canister", "install", canister, "--wasm", path, "--mode", "upgrade", "--yes")
    expect("(3" in session.call(canister, "get", query=True), "the counter is another one")
    expect("välue" in session.call(canister, "lookup", '("key")', query=True), "lookup found something else")


def every_toolchain(session, modules):
    for name, path in modules:
        canister = session.step(f"{name}: create and install", lambda path=path: deploy(session, path))
        if canister is None:
            continue
        session.step(f"{name}: read_state", lambda: read_state(session, canister, path))
        session.step(f"{name}: updates, queries, trap and reject", lambda: updates_and_queries(session, canister))
        session.step(f"{name}: upgrade keeps the state", lambda: upgrade(session, canister, path))


def lifecycle(session, modules):
    canister = session.step("lifecycle: deploy", lambda: deploy(session, modules[0][1]))
    if canister is None:
        return

    def settings():
        session.icp("canister", "settings", "update", canister, "--freezing-threshold", "12345")
        text = session.icp("canister", "settings", "show", canister).replace("_", "").replace(",", "")
        expect("12345" in text, f"the settings are {text}")
        session.refused("canister", "settings", "show", canister, "--identity", "anonymous")
        session.icp("canister", "settings", "update", canister, "--status-visibility", "public")
        session.icp("canister", "settings", "show", canister, "--identity", "anonymous")

    def logs():
        session.refused("canister", "call", canister, "fail_trap", "()")
        text = session.icp("canister", "logs", canister)
        expect("trapped on request" in text, f"the logs are {text}")

    def stop_and_start():
        session.icp("canister", "stop", canister)
        text = session.refused("canister", "call", canister, "inc", "()")
        expect("stopped" in text, f"a call to a stopped canister says {text}")
        expect("stopped" in str(status(session, canister)).lower(), "the status is not stopped")
        session.icp("canister", "start", canister)
        expect("(1" in session.call(canister, "inc"), "inc answered another count")

    def reinstall():
        session.icp("canister", "install", canister, "--wasm", modules[0][1], "--mode", "reinstall", "--yes")
        expect("(0" in session.call(canister, "get", query=True), "a reinstalled canister has state")

    def delete():
        session.icp("canister", "stop", canister)
        # By default the tool first moves the cycles to the ledger canister of the public network, which is not here.
        session.icp("canister", "delete", "--no-recover-cycles", canister)
        text = session.refused("canister", "call", "--query", canister, "get", "()")
        expect("not found" in text, f"a call to a deleted canister says {text}")

    session.step("lifecycle: settings", settings)
    session.step("lifecycle: logs", logs)
    session.step("lifecycle: stop and start", stop_and_start)
    session.step("lifecycle: reinstall", reinstall)
    session.step("lifecycle: delete", delete)


def delegation(session, modules):
    """A session key of another identity, signed by the tester's: the canister knows the tester."""
    canister = session.step("delegation: deploy", lambda: deploy(session, modules[0][1]))
    other = session.step("delegation: deploy another", lambda: deploy(session, modules[0][1]))
    if canister is None or other is None:
        return

    def session_identity(name, *restriction):
        key = os.path.join(HOME, f"{name}.pem")
        with open(key, "w", encoding="utf-8") as file:
            file.write(session.icp("identity", "delegation", "request", name, "--storage", "plaintext", network=False))
        chain = os.path.join(HOME, f"{name}.json")
        with open(chain, "w", encoding="utf-8") as file:
            sign = ["identity", "delegation", "sign", "--key-pem", key, "--duration", "1h", *restriction]
            file.write(session.icp(*sign, network=False))
        session.icp("identity", "delegation", "use", name, "--from-json", chain, network=False)

    def whole():
        session_identity("delegated")
        text = session.icp("canister", "call", canister, "who", "()", "--identity", "delegated")
        expect(session.principal in text, f"known as {text}, not {session.principal}")

    def restricted():
        session_identity("restricted", "--canisters", canister)
        text = session.icp("canister", "call", canister, "who", "()", "--identity", "restricted")
        expect(session.principal in text, f"known as {text}, not {session.principal}")
        session.refused("canister", "call", other, "who", "()", "--identity", "restricted")

    session.step("delegation: known as the identity that signed", whole)
    session.step("delegation: only for the canisters that it names", restricted)


def restart(session, modules):
    canisters = []

    def prepare():
        for name, path in modules:
            canister = deploy(session, path)
            session.call(canister, "inc")
            canisters.append((name, canister))

    session.step("restart: prepare", prepare)
    if session.step("restart: clean stop and start", lambda: session.ask("@restart")) is None:
        return
    for name, canister in canisters:
        session.step(
            f"restart: {name} is as it was",
            lambda canister=canister: expect("(2" in session.call(canister, "inc"), "inc answered another count"),
        )


def kill_under_load(session, modules):
    canister = session.step("kill: deploy", lambda: deploy(session, modules[0][1]))
    if canister is None:
        return
    acknowledged = []

    def load(client):
        for sequence in range(1000):
            note = f"{client}/{sequence}"
            try:
                position = session.call(canister, "note", f'("{note}")')
            except (Failure, subprocess.TimeoutExpired):  # the replica is gone, which ends the load
                return
            acknowledged.append((note, int("".join(filter(str.isdigit, position.split(":")[0])))))

    clients = [threading.Thread(target=load, args=(client,), daemon=True) for client in range(2)]
    for client in clients:
        client.start()
    # The threads keep calling the old address until they find it dead.
    if session.step("kill: load, kill -9, recovery", lambda: session.ask("@kill 3000")) is None:
        return
    for client in clients:
        client.join(10)

    def all_there():
        expect(acknowledged, "nothing was acknowledged before the kill")
        notes = session.call(canister, "notes", query=True)
        for note, _ in list(acknowledged):
            count = notes.count(f'"{note}"')
            expect(count == 1, f"{note} is there {count} times")

    print(f"   {len(acknowledged)} updates were acknowledged", flush=True)
    session.step("kill: every acknowledged update is there, none twice", all_there)


def main():
    url, *named = sys.argv[1:]
    modules = [tuple(argument.split("=", 1)) for argument in named]
    session = Session(url)
    every_toolchain(session, modules)
    lifecycle(session, modules)
    delegation(session, modules)
    restart(session, modules)
    kill_under_load(session, modules)
    return 1 if session.failures else 0


if __name__ == "__main__":
    sys.exit(main())
