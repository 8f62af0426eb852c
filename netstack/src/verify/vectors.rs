//! Published vectors: signatures that others made.

use super::*;
use crate::envelope::Delegation;
use tests::verifier;

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// The outcome of verifying `signature` by the DER-encoded `key`.
fn verify(key: &str, payload: &[u8], signature: &str) -> Result<(), String> {
    let key = hex(key);
    let key = PublicKey::from_der(&key).map_err(str::to_owned)?;
    let circumstances = Circumstances {
        now: Time(0),
        root_key: &|| unreachable!("no certificate is involved"),
    };
    let certificates = Certificates {
        verifier: &verifier(false),
        circumstances: &circumstances,
    };
    schemes::verify(&key, payload, &hex(signature), &certificates)
}

/// Checks that a signature counts, for its payload only.
fn check(name: &str, key: &str, payload: &[u8], signature: &str) {
    assert_eq!(verify(key, payload, signature), Ok(()), "{name}");
    assert!(verify(key, &[payload, b"x"].concat(), signature).is_err(), "{name}");
}

const ED25519: &str = "302a300506032b6570032100";
const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const SECP256K1: &str = "3056301006072a8648ce3d020106052b8104000a034200";

/// RFC 8032, section 7.1, tests 1 to 3.
#[test]
fn ed25519_signatures_of_the_standard() {
    for (number, key, payload, signature) in [
        (
            1,
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            2,
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            3,
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        check(
            &format!("test {number}"),
            &(ED25519.to_owned() + key),
            &hex(payload),
            signature,
        );
    }
}

/// RFC 6979, appendix A.2.5, SHA-256. The `s` of the first is above half of the group order: both values count.
#[test]
fn p256_signatures_of_the_standard() {
    let key = P256.to_owned()
        + "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
           7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    check(
        "sample",
        &key,
        b"sample",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    check(
        "test",
        &key,
        b"test",
        "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367\
         019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
    );
}

/// The widely used vector for deterministic signatures with the key 1, and the other `s` of it.
#[test]
fn secp256k1_signatures_with_either_s() {
    let key = SECP256K1.to_owned()
        + "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
           483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let r = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8";
    for (name, s) in [
        (
            "low s",
            "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
        ),
        (
            "high s",
            "dbbd3162d46e9f9bef7feb87c16dc13b4f6568a87f4e83f728e2443ba586675c",
        ),
    ] {
        check(name, &key, b"Satoshi Nakamoto", &(r.to_owned() + s));
    }
}

/// Key of a YubiKey, which made the assertions below. They are in the tests of the production replica, as those of a
/// Windows Hello authenticator are.
const YUBIKEY: &str = "305e300c060a2b0601040183b8430101034e00a5010203262001215820b487d183dc4806058eb31a29bedefd7bcca987b77a\
    381a3684871d8449c183942258202a122cc711a80453678c3032de4b6fff2c86342e82d1e7adb617c4165c43ce5e";

#[test]
fn assertions_of_a_yubikey() {
    check(
        "a text",
        YUBIKEY,
        b"hello",
        "d9d9f7a37261757468656e74696361746f725f646174615825bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b5\
         010000000170636c69656e745f646174615f6a736f6e58517b2274797065223a2022776562617574686e2e676574222c20226368616c6c656e\
         6765223a202261475673624738222c20226f726967696e223a202268747470733a2f2f6578616d706c652e6f7267227d697369676e61747572\
         6558463044022063627c69661048fb111b13dec2f3675010493c1c276c6a144f44e1fabab01d300220517d3cbd70658933dab63fd23cf05f72\
         74aea6afad206be04d4ec5e268b471d2",
    );
    let mut request_id = [0; 32];
    request_id[0] = 13;
    check(
        "a request",
        YUBIKEY,
        &signed_bytes(REQUEST_DOMAIN, &request_id),
        "d9d9f7a37261757468656e74696361746f725f646174615825bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4\
         b5010000000170636c69656e745f646174615f6a736f6e58847b2274797065223a2022776562617574686e2e676574222c20226368616c6c\
         656e6765223a2022436d6c6a4c584a6c6358566c6333514e4141414141414141414141414141414141414141414141414141414141414141\
         41414141414141414141222c20226f726967696e223a202268747470733a2f2f6578616d706c652e6f7267227d697369676e617475726558\
         473045022100e4029fcf1cec44e0e2a33b2b2b981411376d89f90bec9ee7d4e20ca33ce8f088022070e95aa9dd3f0cf0d6f97f306d522112\
         88482d565012202b349b2a2d80852635",
    );
    let delegation = Delegation {
        pubkey: (&[1, 2, 3][..]).into(),
        expiration: 0,
        targets: None,
        permissions: None,
    };
    check(
        "a delegation",
        YUBIKEY,
        &signed_bytes(DELEGATION_DOMAIN, &delegation.hash()),
        "d9d9f7a37261757468656e74696361746f725f646174615825bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4\
         b5010000000170636c69656e745f646174615f6a736f6e58997b2274797065223a2022776562617574686e2e676574222c20226368616c6c\
         656e6765223a2022476d6c6a4c584a6c6358566c63335174595856306143316b5a57786c5a32463061573975624d7952313366786f724657\
         6730775069346566504e774b562d7a76486467504868716649536d77677141222c20226f726967696e223a202268747470733a2f2f657861\
         6d706c652e6f7267227d697369676e617475726558483046022100d4b7541f3b1b61dd9c6f818f20f54f8b938fe222d88cca6700fabd82a5\
         22f13b022100c636b52dfd679b1f86eeb5fcaff360e70b57caa9fe186e1e77c42228eca49037",
    );
}

#[test]
fn an_assertion_of_windows_hello() {
    check(
        "rsa",
        "30820123300c060a2b0601040183b84301010382011100a401030339010020590100c6b690341eef02719f6d1dfce2db1f77ac9bd632ba70ef\
         cee92bae2073c09927ee3670a6696eec0cee96189ddb448d04ec4e4674e940af9f905e893b4ce25821ada8b45c6cd11f2ee0cda668c7c2a2a8\
         a56d5e1f23f5ca0bb6e193c1d34ead16d84cc4b72e26763711fcf49fac3b508715dc9f494ec1379ed5a95c53b9b1edcc027d7013248bbe6d1e\
         1445912a5a21b27168db7f60aa73253e981c33f54f61c67dbce3d9c10d5f0e6af1c112a65c8ce64a1d01ae1e31a53e3d4525addcece402f1e6\
         2208d42ebde528830f93bebc898901947ec0fb218a96a53968d07e09b8a067e5a4c825632e24e450c4c9ef8138dcc91f9f9168a603c13bd4f2\
         f8a0d3ee6b2143010001",
        b"hello",
        "d9d9f7a3697369676e617475726559010001dac0ad9ee89c9b9d3f772bb8dd79bc16839a026bf4378629789bede8e5e284bce9c59e2c5b2fd5\
         d8daff964d4eec1a43eb6f083595f1ce42c9f78445dba95146e3338680ca72f7720371d88d56ab6578a67f9791954787d54e4c5687bb0d3379\
         a268dbaa9dc8dd550187953c349e10e454c0950cfeaf37c5f01ff09a5b581fb81de8bfe9be21a8baa5f96653fce6eaf485d8726e1f620454c1\
         45fa542756e7b606f1ab9439a081bb01fec8be7679c72e2ce110655a36a01bde34be7be9e6270334d9b3f242ff12852992eeb515b13989245d\
         049500629a5ac38c40f09dd218e8e1a790d3034418b7c3b59a6ac73e91b5bf4cf7c62d8e6de2dbaf00117045c070636c69656e745f64617461\
         5f6a736f6e786a7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a2261475673624738222c226f726967\
         696e223a2268747470733a2f2f6333656634366165616437622e6e67726f6b2e696f222c2263726f73734f726967696e223a66616c73657d72\
         61757468656e74696361746f725f6461746158252f8ceaf48dec5b53d9ddacaaf8b66392ded1691211f24e687badad8049b59ef60500000001",
    );
}

/// Keys of RSA that is not wrapped as an authenticator's key: not a scheme of the interface.
#[test]
fn rsa_is_for_authenticators_only() {
    let key = "30820122300d06092a864886f70d01010105000382010f00".to_owned() + &"11".repeat(271);
    assert!(verify(&key, b"hello", "00").is_err());
}

/// A modulus of 2,047 bits is refused, however its bytes are counted.
#[test]
fn short_rsa_keys_are_refused() {
    let modulus = |first: u8| {
        let mut modulus = vec![0xff; 256];
        modulus[0] = first;
        keys::CoseKey::Rs256 {
            modulus: modulus.into(),
            exponent: (&[1, 0, 1][..]).into(),
        }
    };
    let refused = |first| schemes::cose(&modulus(first), b"hello", &[0; 256]).unwrap_err();
    assert!(refused(0x7f).contains("shorter"));
    assert!(refused(0x00).contains("shorter"));
    assert!(!refused(0x80).contains("shorter"));
}

/// What a canister for logins signed, for a delegation to the key `MY PUBLIC KEY` that expires at
/// [`CANISTER_SIGNED_EXPIRATION`]: the vector that the production replica tests itself with (dfinity/ic,
/// `rs/crypto/internal/test_vectors/src/iccsa.rs`).
const CANISTER_SIGNATURE: &str = "d9d9f7a26b636572746966696361746559018bd9d9f7a2647472656583018301830183024863616e6973746572830182045820cb\
    d2968ab7b3383f8e1c81e6ec2811b0873f21ea3b7ad5a769eb9030ce02386e83024a000000000000000801018301830183024e63\
    65727469666965645f6461746182035820f3e90c5b46e5ed3fca8848f2e71651d4439a49a252b83b417d0647f3205c0773820458\
    20d08aa58b72017dd5e5149ac22e46a786b6524ec1d8756acf88b9e37c14ef8fe282045820a2a8720abbe0bd650f04a66f7bfade\
    f746b474ef29d41d126bd1ea233615ad188204582099e59e17dce9a13fefc922d20a90db036f77352788e99d698b3640d4fa8877\
    2482045820452558ea92c951baf2bf35b294005edeb8c3bf94b6af9b6b92839dd268a7ca5a830182045820b4acde406ef595b7b3\
    c3f16265b9b365bee38294a1b7a59a9d51d6422ab9987983024474696d65820349d8fb9aafea8c96bb16697369676e6174757265\
    5830b159a3d65f082279ff3f515d0fe7e8584302b36bcc9c693878483d4f1d07b35c691ac5df09bf9643cafb22cabb30076e6474\
    7265658302437369678302582039e5b4830d4d9c14db7368a95b65d5463ea3d09520373723430c03a5a453b5df830258208f7f1d\
    02ee5ff0cd3f3b5dd1d872d004dde7f9187bc139d207ab091dbd55e274820340";
/// The key of the network that the canister was on.
const CANISTER_ROOT_KEY: &str = "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100937d967742f4f9b01b8e26d3c9e53c\
    5a251a83586afc73f054bac1aed60c1b11e7a6677ec0b26085cdc1d39ad4c8dcb502ed14f54af440d1d829075b1e9f6e72de57eb\
    b2384a615d0b3e2f3a6af4516532de713a2a57457a66b68b0a7d34f84e";
const CANISTER_SIGNED_EXPIRATION: u64 = 1_650_114_196_974_266_000;

/// Verifies [`CANISTER_SIGNATURE`] after `damage` has seen the seed, the payload, the signature and the root key.
fn verify_canister_signature(damage: impl Fn([&mut Vec<u8>; 4])) -> Result<(), String> {
    let delegation = Delegation {
        pubkey: b"MY PUBLIC KEY".as_slice().into(),
        expiration: CANISTER_SIGNED_EXPIRATION,
        targets: None,
        permissions: None,
    };
    let mut payload = signed_bytes(DELEGATION_DOMAIN, &delegation.hash());
    let (mut seed, mut signature) = (b"10000".to_vec(), hex(CANISTER_SIGNATURE));
    let mut root_key = hex(CANISTER_ROOT_KEY);
    damage([&mut seed, &mut payload, &mut signature, &mut root_key]);
    let canister = PrincipalId::from_text("qoctq-giaaa-aaaaa-aaaea-cai").unwrap();
    let bits = [&[0, canister.as_slice().len() as u8], canister.as_slice(), &seed].concat();
    let algorithm = hex("300c060a2b0601040183b8430102");
    let contents = [&algorithm[..], &[0x03, bits.len() as u8], &bits].concat();
    let key = [&[0x30, contents.len() as u8], &contents[..]].concat();
    let key = PublicKey::from_der(&key).map_err(str::to_owned)?;
    let root_key: Arc<[u8]> = root_key.into();
    let circumstances = Circumstances {
        now: Time(0),
        root_key: &|| Arc::clone(&root_key),
    };
    let certificates = Certificates {
        verifier: &verifier(false),
        circumstances: &circumstances,
    };
    schemes::verify(&key, &payload, &signature, &certificates)
}

#[test]
fn a_canister_signature_that_a_canister_for_logins_made() {
    assert_eq!(verify_canister_signature(|_| {}), Ok(()));
    type Damage = fn([&mut Vec<u8>; 4]);
    let damages: [(&str, Damage); 6] = [
        ("seed", |[seed, ..]| seed.push(b'0')),
        ("payload", |[_, payload, ..]| payload.push(0)),
        ("certificate", |[_, _, signature, _]| signature[60] ^= 1),
        ("certified data", |[_, _, signature, _]| {
            let label = signature
                .windows(14)
                .position(|bytes| bytes == b"certified_data")
                .unwrap();
            signature[label + 20] ^= 1;
        }),
        ("tree", |[_, _, signature, _]| {
            let last = signature.len() - 5;
            signature[last] ^= 1;
        }),
        ("root key", |[.., root_key]| {
            // That of the main network.
            root_key[37..].copy_from_slice(&hex(
                "814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14fb5d9c0cd546d9685f913a0c0b2cc534\
                 1583bf4b4392e467db96d65b9bb4cb717112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae",
            ));
        }),
    ];
    for (what, damage) in damages {
        assert!(verify_canister_signature(damage).is_err(), "{what}");
    }
}
