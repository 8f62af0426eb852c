// The connection to the replica through @icp-sdk/core, its certificate and query-signature checks on: identities, Candid calls,
// restarts on request, and the report of steps.
import { createInterface } from 'node:readline';
import { HttpAgent } from '@icp-sdk/core/agent';
import { IDL } from '@icp-sdk/core/candid';
import { Principal } from '@icp-sdk/core/principal';

export const MANAGEMENT = Principal.managementCanister();
const { Nat, Text, Vec, Nat8, Opt, Record, Variant, Bool, Empty, Null } = IDL;
const Id = IDL.Principal;
const Blob = Vec(Nat8);
const Settings = Record({ controllers: Opt(Vec(Id)), freezing_threshold: Opt(Nat) });
const Target = Record({ canister_id: Id });
const Persistence = Variant({ keep: Null, replace: Null });
const Mode = Variant({
    install: Null,
    reinstall: Null,
    upgrade: Opt(Record({ skip_pre_upgrade: Opt(Bool), wasm_memory_persistence: Opt(Persistence) })),
});

// Arguments and results of every method in use.
export const METHODS = {
    inc: [[], [Nat]],
    get: [[], [Nat]],
    put: [[Text, Text], []],
    lookup: [[Text], [Opt(Text)]],
    note: [[Text], [Nat]],
    notes: [[], [Vec(Text)]],
    who: [[], [Id]],
    who_query: [[], [Id]],
    fail_trap: [[], []],
    fail_reject: [[], []],
    forbidden: [[], []],
    no_such_method: [[], []],
    call_other: [[Id], [Nat]],
    call_failing: [[Id], [Text]],
    random: [[], [Blob]],
    arm_timer: [[], []],
    timer_count: [[], [Nat]],
    certify: [[Blob], []],
    certified: [[], [Opt(Blob)]],
};
const MANAGEMENT_METHODS = {
    provisional_create_canister_with_cycles: [[Record({ amount: Opt(Nat), settings: Opt(Settings) })], [Target]],
    create_canister: [[Record({ settings: Opt(Settings) })], [Target]],
    install_code: [[Record({ mode: Mode, canister_id: Id, wasm_module: Blob, arg: Blob })], []],
    upload_chunk: [[Record({ canister_id: Id, chunk: Blob })], [Record({ hash: Blob })]],
    install_chunked_code: [
        [Record({ mode: Mode, target_canister: Id, chunk_hashes_list: Vec(Record({ hash: Blob })), wasm_module_hash: Blob, arg: Blob })],
        [],
    ],
    update_settings: [[Record({ canister_id: Id, settings: Settings })], []],
    canister_status: [
        [Target],
        [Record({
            status: Variant({ running: Null, stopping: Null, stopped: Null }),
            settings: Record({ controllers: Vec(Id), freezing_threshold: Nat }),
            module_hash: Opt(Blob),
            cycles: Nat,
        })],
    ],
    fetch_canister_logs: [[Target], [Record({ canister_log_records: Vec(Record({ idx: IDL.Nat64, content: Blob })) })]],
    stop_canister: [[Target], []],
    start_canister: [[Target], []],
    uninstall_code: [[Target], []],
    delete_canister: [[Target], []],
};

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export class Session {
    failures = 0;

    static async connect(url, identity) {
        const session = new Session();
        Object.assign(session, { url, identity });
        session.agent = await HttpAgent.create({ host: url, identity, shouldFetchRootKey: true });
        session.rootKey = session.agent.rootKey;
        return session;
    }

    // An agent for another identity, with the root key of the first contact.
    agentFor(identity) {
        return HttpAgent.create({ host: this.url, identity, rootKey: this.rootKey, retryTimes: 0 });
    }

    // Has the replica stopped or killed and connects to the new one.
    async ask(request) {
        console.log(request);
        const { value, done } = await lines.next();
        if (done) throw new Error('nobody answered the request for a restart');
        this.url = value;
        this.agent = await this.agentFor(this.identity);
    }

    // Reports one step; a failed one gives undefined.
    async step(name, action) {
        const started = Date.now();
        try {
            const value = await action();
            console.log(`ok ${name} (${Date.now() - started} ms)`);
            return value ?? true;
        } catch (error) {
            console.log(`FAIL ${name}: ${String(error?.message ?? error).replaceAll('\n', ' ')}`);
            this.failures += 1;
            return undefined;
        }
    }
}

function decode(types, bytes) {
    return IDL.decode(types, bytes)[0];
}

export async function update(agent, id, method, ...values) {
    const [argument, result] = METHODS[method];
    const { reply } = await agent.update(id, { methodName: method, arg: IDL.encode(argument, values) });
    return decode(result, reply);
}

export async function query(agent, id, method, ...values) {
    const [argument, result] = METHODS[method];
    const answer = await agent.query(id, { methodName: method, arg: IDL.encode(argument, values) });
    if (answer.status !== 'replied') throw Object.assign(new Error(answer.reject_message), { query: answer });
    return decode(result, answer.reply.arg);
}

// `target` is where the call is routed: the canister that it is about, or a subnet.
export async function manage(agent, target, method, value) {
    const [argument, result] = MANAGEMENT_METHODS[method];
    const effectiveTarget = target.subnetId ? target : { canisterId: target };
    const { reply } = await agent.update(MANAGEMENT, { methodName: method, arg: IDL.encode(argument, [value]), effectiveTarget });
    return decode(result, reply);
}

export async function manageQuery(agent, target, method, value) {
    const [argument, result] = MANAGEMENT_METHODS[method];
    const effectiveTarget = { canisterId: target };
    const answer = await agent.query(MANAGEMENT, { methodName: method, arg: IDL.encode(argument, [value]), effectiveTarget });
    if (answer.status !== 'replied') throw Object.assign(new Error(answer.reject_message), { query: answer });
    return decode(result, answer.reply.arg);
}

// The reject of a call that must fail: its code and its message.
export async function rejected(promise) {
    try {
        await promise;
    } catch (error) {
        if (error.query) return { code: error.query.reject_code, message: error.query.reject_message };
        const reject = error.code ?? error.cause?.code;
        if (reject?.rejectCode !== undefined) return { code: reject.rejectCode, message: reject.rejectMessage };
        throw error;
    }
    throw new Error('the call went through');
}

export async function expectReject(promise, code, text) {
    const reject = await rejected(promise);
    check(reject.code === code, `reject code ${reject.code}: ${reject.message}`);
    check(reject.message.includes(text), `reject message: ${reject.message}`);
}

export function check(condition, message) {
    if (!condition) throw new Error(message);
}
