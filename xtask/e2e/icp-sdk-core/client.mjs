// The end-to-end scenario through @icp-sdk/core. `node client.mjs URL NAME=MODULE...`; see session.mjs for what is printed.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { AnonymousIdentity, CanisterStatus, Certificate } from '@icp-sdk/core/agent';
import { DelegationChain, DelegationIdentity, ECDSAKeyIdentity, Ed25519KeyIdentity } from '@icp-sdk/core/identity';
import { Secp256k1KeyIdentity } from '@icp-sdk/core/identity/secp256k1';
import { Principal } from '@icp-sdk/core/principal';
import { MANAGEMENT, Session, check, expectReject, manage, manageQuery, query, update } from './session.mjs';

const [url, ...named] = process.argv.slice(2);
const modules = named.map((argument) => {
    const [name, path] = argument.split('=');
    return { name, bytes: readFileSync(path) };
});
const first = modules[0].bytes;
const CHUNKED_FROM = 1.85 * 1024 * 1024;
const CHUNK = 1024 * 1024;

const sha256 = (bytes) => createHash('sha256').update(bytes).digest();
const ed25519 = () => Ed25519KeyIdentity.generate(randomBytes(32));
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const day = () => new Date(Date.now() + 24 * 3600 * 1000);

async function install(agent, id, module, mode) {
    if (module.length < CHUNKED_FROM) {
        await manage(agent, id, 'install_code', { mode, canister_id: id, wasm_module: module, arg: [] });
        return;
    }
    const chunks = [];
    for (let at = 0; at < module.length; at += CHUNK) chunks.push(module.subarray(at, at + CHUNK));
    const hashes = await Promise.all(chunks.map((chunk) => manage(agent, id, 'upload_chunk', { canister_id: id, chunk })));
    const wasm_module_hash = sha256(module);
    await manage(agent, id, 'install_chunked_code', { mode, target_canister: id, chunk_hashes_list: hashes, wasm_module_hash, arg: [] });
}

async function deploy(agent, module) {
    const { canister_id: id } = await manage(agent, MANAGEMENT, 'provisional_create_canister_with_cycles', { amount: [], settings: [] });
    await install(agent, id, module, { install: null });
    return id;
}

async function knownAsItself(session, id, identity) {
    const agent = await session.agentFor(identity);
    const expected = identity.getPrincipal().toText();
    for (const answer of [await update(agent, id, 'who'), await query(agent, id, 'who_query')]) {
        check(answer.toText() === expected, `known as ${answer}, not ${expected}`);
    }
}

async function identities(session) {
    const id = await session.step('deploy the C application', () => deploy(session.agent, first));
    if (!id) return;
    const direct = {
        anonymous: new AnonymousIdentity(),
        Ed25519: ed25519(),
        secp256k1: Secp256k1KeyIdentity.generate(randomBytes(32)),
        'P-256': await ECDSAKeyIdentity.generate(),
    };
    for (const [name, identity] of Object.entries(direct)) {
        await session.step(`identity: ${name}`, () => knownAsItself(session, id, identity));
    }
    const [root, middle, last] = [ed25519(), ed25519(), ed25519()];
    await session.step('identity: delegation', async () => {
        const chain = await DelegationChain.create(root, last.getPublicKey(), day());
        await knownAsItself(session, id, DelegationIdentity.fromDelegation(last, chain));
    });
    await session.step('identity: chain of two delegations with targets', async () => {
        const previous = await DelegationChain.create(root, middle.getPublicKey(), day(), { targets: [id] });
        const chain = await DelegationChain.create(middle, last.getPublicKey(), day(), { previous, targets: [id] });
        await knownAsItself(session, id, DelegationIdentity.fromDelegation(last, chain));
    });
    await session.step('identity: delegation for another canister is refused', async () => {
        const chain = await DelegationChain.create(root, last.getPublicKey(), day(), { targets: [MANAGEMENT] });
        const accepted = await knownAsItself(session, id, DelegationIdentity.fromDelegation(last, chain)).then(() => true, () => false);
        check(!accepted, 'it was accepted');
    });
}

async function readState(session, id, module) {
    const paths = ['time', 'controllers', 'module_hash', 'candid', 'subnet'];
    const status = await CanisterStatus.request({ canisterId: id, agent: session.agent, paths });
    check(status.get('module_hash') === sha256(module).toString('hex'), `module_hash is ${status.get('module_hash')}`);
    const me = session.identity.getPrincipal().toText();
    check(status.get('controllers').map(String).join() === me, `controllers are ${status.get('controllers')}`);
    check(String(status.get('candid')).includes('call_failing'), 'metadata is not the interface');
    const subnet = Principal.selfAuthenticating(session.rootKey).toText();
    check(String(status.get('subnet')?.subnetId) === subnet, `subnet is ${status.get('subnet')?.subnetId}`);
}

async function updatesAndQueries(agent, id) {
    for (let expected = 1n; expected <= 3n; expected += 1n) {
        check((await update(agent, id, 'inc')) === expected, 'inc answered another count');
        check((await query(agent, id, 'get')) === expected, 'get answered another count');
    }
    await update(agent, id, 'put', 'key', 'välue');
    check((await query(agent, id, 'lookup', 'key'))[0] === 'välue', 'lookup found something else');
    check((await query(agent, id, 'lookup', 'no such key')).length === 0, 'lookup found something');
    check((await update(agent, id, 'note', 'first')) === 0n, 'note answered another position');
}

async function failures(agent, id) {
    await expectReject(update(agent, id, 'fail_trap'), 5, 'trapped on request');
    check((await query(agent, id, 'get')) === 3n, 'a trap was not undone');
    await expectReject(update(agent, id, 'fail_reject'), 4, 'rejected on request');
    check((await query(agent, id, 'get')) === 4n, 'a reject was undone');
    await expectReject(query(agent, id, 'no_such_method'), 5, 'no_such_method');
    const passed = await update(agent, id, 'forbidden').then(() => true, () => false);
    check(!passed, 'inspect_message let a message pass');
}

async function timer(agent, id) {
    await update(agent, id, 'arm_timer');
    for (let attempt = 0; attempt < 100; attempt += 1) {
        if ((await query(agent, id, 'timer_count')) === 1n) return;
        await sleep(50);
    }
    throw new Error('the timer did not run within five seconds');
}

async function certifiedData(session, id) {
    const data = sha256(id.toUint8Array());
    await update(session.agent, id, 'certify', data);
    const [bytes] = await query(session.agent, id, 'certified');
    check(bytes, 'no certificate in a query');
    const certificate = await Certificate.create({
        certificate: new Uint8Array(bytes),
        rootKey: session.rootKey,
        principal: { canisterId: id },
    });
    const found = certificate.lookup_path(['canister', id.toUint8Array(), 'certified_data']);
    check(Buffer.from(found.value ?? []).equals(data), 'other data was certified');
}

async function upgrade(agent, id, { name, bytes }) {
    const wasm_memory_persistence = name === 'motoko64' ? [{ keep: null }] : [];
    await install(agent, id, bytes, { upgrade: [{ skip_pre_upgrade: [], wasm_memory_persistence }] });
    check((await query(agent, id, 'get')) === 4n, 'the counter is another one');
    check((await query(agent, id, 'lookup', 'key'))[0] === 'välue', 'lookup found something else');
    check((await update(agent, id, 'note', 'second')) === 1n, 'note answered another position');
    check((await query(agent, id, 'notes')).join() === 'first,second', 'notes are others');
}

async function calls(agent, id, other) {
    const before = await query(agent, other, 'get');
    const answer = await update(agent, id, 'call_other', other);
    check(answer === before + 1n, `call_other answered ${answer} after ${before}`);
    const message = await update(agent, id, 'call_failing', other);
    check(message.includes('trapped on request'), `call_failing answered ${message}`);
    check((await query(agent, other, 'get')) === answer, "the callee's trap was not undone");
}

async function everyToolchain(session) {
    const { agent } = session;
    let other;
    for (const module of modules) {
        const step = (what, action) => session.step(`${module.name}: ${what}`, action);
        const id = await step('create and install', () => deploy(agent, module.bytes));
        if (!id) continue;
        other ??= id;
        await step('read_state', () => readState(session, id, module.bytes));
        await step('updates and queries', () => updatesAndQueries(agent, id));
        await step('trap and reject', () => failures(agent, id));
        await step('random bytes', async () => {
            const [one, two] = [await update(agent, id, 'random'), await update(agent, id, 'random')].map(Buffer.from);
            check(one.length === 32 && two.length === 32 && !one.equals(two), 'not two different blobs of 32 bytes');
        });
        await step('global timer', () => timer(agent, id));
        await step('certified data', () => certifiedData(session, id));
        await step('upgrade keeps the state', () => upgrade(agent, id, module));
        await step('calls to another canister', () => calls(agent, id, other));
    }
}

async function lifecycle(session) {
    const { agent } = session;
    const id = await session.step('lifecycle: deploy', () => deploy(agent, first));
    if (!id) return;
    const target = { canister_id: id };
    await session.step('lifecycle: settings and status', async () => {
        await manage(agent, id, 'update_settings', { canister_id: id, settings: { controllers: [], freezing_threshold: [12345n] } });
        for (const call of [manage, manageQuery]) {
            const status = await call(agent, id, 'canister_status', target);
            check(status.settings.freezing_threshold === 12345n, `the threshold is ${status.settings.freezing_threshold}`);
            check('running' in status.status && status.cycles > 0n, 'the status is another one');
        }
    });
    await session.step('lifecycle: logs', async () => {
        await update(agent, id, 'fail_trap').catch(() => undefined);
        const { canister_log_records: records } = await manageQuery(agent, id, 'fetch_canister_logs', target);
        const text = Buffer.from(records.at(-1)?.content ?? []).toString();
        check(text.includes('trapped on request'), `the last record is ${text}`);
    });
    await session.step('lifecycle: stop and start', async () => {
        await manage(agent, id, 'stop_canister', target);
        await expectReject(update(agent, id, 'inc'), 5, 'stopped');
        await expectReject(query(agent, id, 'get'), 5, 'stopped');
        await manage(agent, id, 'start_canister', target);
        check((await update(agent, id, 'inc')) === 1n, 'inc answered another count');
    });
    await session.step('lifecycle: uninstall and delete', async () => {
        await manage(agent, id, 'uninstall_code', target);
        await expectReject(query(agent, id, 'get'), 5, 'no Wasm module');
        await manage(agent, id, 'stop_canister', target);
        await manage(agent, id, 'delete_canister', target);
        await expectReject(query(agent, id, 'get'), 3, 'not found');
    });
    await session.step('lifecycle: create through the subnet endpoint', async () => {
        const subnetId = Principal.selfAuthenticating(session.rootKey);
        const created = await manage(agent, { subnetId }, 'create_canister', { settings: [] });
        const status = await manage(agent, created.canister_id, 'canister_status', created);
        check(status.module_hash.length === 0, 'a new canister has a module');
    });
    await session.step('lifecycle: asynchronous call (v2) is polled', async () => {
        const other = await deploy(agent, first);
        const arg = new Uint8Array([0x44, 0x49, 0x44, 0x4c, 0, 0]);
        const result = await agent.update(other, { methodName: 'inc', arg, callSync: false });
        check(result.reply?.length > 0, 'no reply');
    });
}

async function restart(session) {
    const canisters = [];
    await session.step('restart: prepare', async () => {
        for (const { name, bytes } of modules) {
            const id = await deploy(session.agent, bytes);
            await update(session.agent, id, 'put', 'before', 'restart');
            await update(session.agent, id, 'inc');
            canisters.push({ name, id });
        }
    });
    if (!(await session.step('restart: clean stop and start', () => session.ask('@restart')))) return;
    for (const { name, id } of canisters) {
        await session.step(`restart: ${name} is as it was`, async () => {
            check((await query(session.agent, id, 'lookup', 'before'))[0] === 'restart', 'lookup found something else');
            check((await update(session.agent, id, 'inc')) === 2n, 'inc answered another count');
        });
    }
}

// Several clients note numbered texts while the replica is killed. Every acknowledged text must be at the position that its
// reply named, none may be there twice.
async function killUnderLoad(session) {
    const id = await session.step('kill: deploy', () => deploy(session.agent, first));
    if (!id) return;
    const acknowledged = [];
    let stop = false;
    const agents = await Promise.all(Array.from({ length: 8 }, () => session.agentFor(ed25519())));
    const load = agents.map(async (agent, client) => {
        for (let sequence = 0; !stop; sequence += 1) {
            const text = `${client}/${sequence}`;
            acknowledged.push({ text, position: await update(agent, id, 'note', text) });
        }
    });
    const ended = Promise.allSettled(load);
    if (!(await session.step('kill: load, kill -9, recovery', () => session.ask('@kill 1500')))) return;
    stop = true;
    await Promise.race([ended, sleep(5000)]);
    console.log(`   ${acknowledged.length} updates were acknowledged before the kill`);
    await session.step('kill: every acknowledged update is there, none twice', async () => {
        check(acknowledged.length > 0, 'nothing was acknowledged before the kill');
        const notes = await query(session.agent, id, 'notes');
        check(new Set(notes).size === notes.length, 'a text was applied twice');
        for (const { text, position } of acknowledged) {
            check(notes[Number(position)] === text, `${text} was acknowledged at ${position}, there is ${notes[Number(position)]}`);
        }
    });
}

const session = await Session.connect(url, ed25519());
await identities(session);
await everyToolchain(session);
await lifecycle(session);
await restart(session);
await killUnderLoad(session);
process.exit(session.failures === 0 ? 0 : 1);
