// The application of app.did in Motoko with enhanced orthogonal persistence: wasm64, and every variable outlives an upgrade
// because the heap itself does.
import CertifiedData "mo:core/CertifiedData";
import Error "mo:core/Error";
import List "mo:core/List";
import Map "mo:core/Map";
import Principal "mo:core/Principal";
import Runtime "mo:core/Runtime";
import Text "mo:core/Text";
import Timer "mo:core/Timer";

persistent actor {
  var counter : Nat = 0;
  let map = Map.empty<Text, Text>();
  let entries = List.empty<Text>();
  var timerRuns : Nat = 0;

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

  public func put(key : Text, value : Text) : async () { Map.add(map, Text.compare, key, value) };
  public query func lookup(key : Text) : async ?Text { Map.get(map, Text.compare, key) };

  public func note(entry : Text) : async Nat { List.add(entries, entry); List.size(entries) - 1 };
  public query func notes() : async [Text] { List.toArray(entries) };

  public shared ({ caller }) func who() : async Principal { caller };
  public shared query ({ caller }) func who_query() : async Principal { caller };

  public func fail_trap() : async () { counter += 100; Runtime.trap("trapped on request") };
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
