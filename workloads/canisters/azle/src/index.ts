// The application of app.did in TypeScript: QuickJS inside the canister, state in stable maps.
import {
    call, certifiedDataSet, dataCertificate, IDL, inspectMessage, msgCaller, msgReject,
    Principal, query, setTimer, StableBTreeMap, trap, update
} from 'azle';

const numbers = new StableBTreeMap<string, bigint>(0);
const map = new StableBTreeMap<string, string>(1);
const entries = new StableBTreeMap<bigint, string>(2);

function read(name: string): bigint {
    return numbers.get(name) ?? 0n;
}

function add(name: string, amount: bigint): bigint {
    const sum = read(name) + amount;
    numbers.insert(name, sum);
    return sum;
}

export default class {
    @inspectMessage
    inspect(methodName: string): boolean {
        return methodName !== 'forbidden';
    }

    @update([], IDL.Nat)
    inc(): bigint {
        return add('counter', 1n);
    }
    @query([], IDL.Nat)
    get(): bigint {
        return read('counter');
    }

    @update([IDL.Text, IDL.Text])
    put(key: string, value: string): void {
        map.insert(key, value);
    }
    @query([IDL.Text], IDL.Opt(IDL.Text))
    lookup(key: string): [string] | [] {
        const value = map.get(key);
        return value === undefined ? [] : [value];
    }

    @update([IDL.Text], IDL.Nat)
    note(entry: string): bigint {
        const position = BigInt(entries.len());
        entries.insert(position, entry);
        return position;
    }
    // Keys are ordered by their serialised bytes, hence the explicit walk by position.
    @query([], IDL.Vec(IDL.Text))
    notes(): string[] {
        return Array.from({ length: Number(entries.len()) }, (_, position) => entries.get(BigInt(position)) ?? '');
    }

    @update([], IDL.Principal)
    who(): Principal {
        return msgCaller();
    }
    @query([], IDL.Principal)
    who_query(): Principal {
        return msgCaller();
    }

    @update([])
    fail_trap(): void {
        add('counter', 100n);
        trap('trapped on request');
    }
    @update([], undefined, { manual: true })
    fail_reject(): void {
        add('counter', 1n);
        msgReject('rejected on request');
    }
    @update([])
    forbidden(): void {}

    @update([IDL.Principal], IDL.Nat)
    async call_other(other: Principal): Promise<bigint> {
        return await call<undefined, bigint>(other, 'inc', { returnIdlType: IDL.Nat });
    }
    @update([IDL.Principal], IDL.Text)
    async call_failing(other: Principal): Promise<string> {
        try {
            await call(other, 'fail_trap');
            return 'no failure';
        } catch (failure: any) {
            return failure.rejectMessage;
        }
    }
    @update([], IDL.Vec(IDL.Nat8))
    async random(): Promise<Uint8Array> {
        return await call<undefined, Uint8Array>('aaaaa-aa', 'raw_rand', { returnIdlType: IDL.Vec(IDL.Nat8) });
    }

    @update([])
    arm_timer(): void {
        setTimer(0, () => {
            add('timer', 1n);
        });
    }
    @query([], IDL.Nat)
    timer_count(): bigint {
        return read('timer');
    }

    @update([IDL.Vec(IDL.Nat8)])
    certify(data: Uint8Array): void {
        certifiedDataSet(data);
    }
    @query([], IDL.Opt(IDL.Vec(IDL.Nat8)))
    certified(): [Uint8Array] | [] {
        const certificate = dataCertificate();
        return certificate === undefined ? [] : [certificate];
    }
}
