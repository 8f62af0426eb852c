// The application of app.did in Motoko with classical persistence: wasm32, stable variables and two upgrade hooks.
import Buffer "mo:base/Buffer";
import CertifiedData "mo:base/CertifiedData";
import Debug "mo:base/Debug";
import Error "mo:base/Error";
import HashMap "mo:base/HashMap";
import Iter "mo:base/Iter";
import Principal "mo:base/Principal";
import Text "mo:base/Text";
import Timer "mo:base/Timer";

actor {
  stable var counter : Nat = 0;
  stable var timerRuns : Nat = 0;
  stable var savedMap : [(Text, Text)] = [];
  stable var savedEntries : [Text] = [];
  let map = HashMap.fromIter<Text, Text>(savedMap.vals(), 16, Text.equal, Text.hash);
  let entries = Buffer.fromArray<Text>(savedEntries);

  system func preupgrade() {
    savedMap := Iter.toArray(map.entries());
    savedEntries := Buffer.toArray(entries);
  };
  system func postupgrade() {
    savedMap := [];
    savedEntries := [];
  };

  type App = actor { inc : () -> async Nat; fail_trap : () -> async () };

  type Method = {
    #inc : Any; #get : Any; #put : Any; #lookup : Any; #note : Any;
    #notes : Any; #who : Any; #who_query : Any; #fail_trap : Any; #fail_reject : Any;
    #forbidden : Any; #call_other : Any; #call_failing : Any; #random : Any; #arm_timer : Any;
    #timer_count : Any; #certify : Any; #certified : Any;
  };

  system func inspect({ msg : Method }) : Bool {
    switch msg { case (#forbidden _) false; case _ true };
  };

  public func inc() : async Nat { counter += 1; counter };
  public query func get() : async Nat { counter };

  public func put(key : Text, value : Text) : async () { map.put(key, value) };
  public query func lookup(key : Text) : async ?Text { map.get(key) };

  public func note(entry : Text) : async Nat { entries.add(entry); entries.size() - 1 };
  public query func notes() : async [Text] { Buffer.toArray(entries) };

  public shared ({ caller }) func who() : async Principal { caller };
  public shared query ({ caller }) func who_query() : async Principal { caller };

  public func fail_trap() : async () { counter += 100; Debug.trap("trapped on request") };
  public func fail_reject() : async () { counter += 1; throw Error.reject("rejected on request") };
  public func forbidden() : async () {};

  public func call_other(other : Principal) : async Nat {
    let app = actor (Principal.toText(other)) : App;
    await app.inc();
  };
  public func call_failing(other : Principal) : async Text {
    let app = actor (Principal.toText(other)) : App;
    try { await app.fail_trap(); "no failure" } catch (failure) { Error.message(failure) };
  };
  public func random() : async Blob {
    let management = actor "aaaaa-aa" : actor { raw_rand : () -> async Blob };
    await management.raw_rand();
  };

  public func arm_timer() : async () {
    ignore Timer.setTimer<system>(#nanoseconds 0, func() : async () { timerRuns += 1 });
  };
  public query func timer_count() : async Nat { timerRuns };

  public func certify(data : Blob) : async () { CertifiedData.set(data) };
  public query func certified() : async ?Blob { CertifiedData.getCertificate() };
};
