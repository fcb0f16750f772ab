//! A token is good in the hands of its holder, within what it says, and as it was signed.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::identity::{Authority, Credential};

const START: u64 = 7;
const SOON: u64 = 2_000;
const NOW: u64 = 1_000;

struct Nodes {
    issuer: Credential,
    holder: Credential,
    thief: Credential,
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are checked against the machine's time"
)]
fn nodes() -> Nodes {
    let authority = Authority::create("test", SystemTime::now()).unwrap();
    let node =
        |name| authority.issue(name, &[], Duration::from_hours(1), SystemTime::now()).unwrap();
    Nodes { issuer: node("issuer"), holder: node("holder"), thief: node("thief") }
}

fn signer(node: &Credential) -> Signer {
    Signer::new(node).unwrap()
}

fn grant(nodes: &Nodes, id: u8) -> Grant {
    Grant {
        id: CapabilityId([id; 16]),
        issuer: nodes.issuer.id(),
        incarnation: START,
        message: MessageId::of("test.work"),
        holder: nodes.holder.id(),
        rights: Rights::from_bits(0b0110),
        expires_ms: SOON,
        uses: Some(5),
    }
}

fn issued(nodes: &Nodes) -> Token {
    Token::issue(&signer(&nodes.issuer), grant(nodes, 1)).unwrap()
}

/// Tokens as they travel, for damage: archives and a text, one block and two.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let nodes = nodes();
    let (one, mut next) = (issued(&nodes), grant(&nodes, 2));
    next.holder = nodes.thief.id();
    let two = issued(&nodes).derive(&signer(&nodes.holder), next).unwrap();
    let archive = |token: &Token| token.parcel().as_raw().as_bytes().to_vec();
    vec![archive(&one), archive(&two), two.to_text().into_bytes()]
}

fn verify(nodes: &Nodes, token: &Token, presenter: &Credential) -> Result<usize, CapabilityError> {
    let verified = token.verify(nodes.issuer.id(), START, presenter.id(), NOW);
    verified.map(|blocks| blocks.len())
}

#[test]
fn a_token_is_read_back_and_good_for_its_holder_alone() {
    let nodes = nodes();
    let text = issued(&nodes).to_text();
    let token = Token::from_text(&format!("  {text}\n")).unwrap();
    assert_eq!(token.last(), &grant(&nodes, 1));
    assert_eq!(verify(&nodes, &token, &nodes.holder).unwrap(), 1);
    let stolen = verify(&nodes, &token, &nodes.thief).unwrap_err();
    assert!(
        matches!(stolen, CapabilityError::OtherHolder { holder } if holder == nodes.holder.id())
    );
    let own = nodes.thief.id();
    let elsewhere = token.verify(own, START, nodes.holder.id(), NOW).unwrap_err();
    assert!(matches!(elsewhere, CapabilityError::OtherIssuer));
    let anew = token.verify(nodes.issuer.id(), START + 1, nodes.holder.id(), NOW).unwrap_err();
    assert!(matches!(anew, CapabilityError::BeganAnew));
    let late = token.verify(nodes.issuer.id(), START, nodes.holder.id(), SOON).unwrap_err();
    assert!(matches!(late, CapabilityError::Expired));
}

#[test]
fn a_holder_narrows_and_hands_on_and_then_only_the_next_one_holds_it() {
    let nodes = nodes();
    let narrower = Grant {
        id: CapabilityId([2; 16]),
        holder: nodes.thief.id(),
        rights: Rights::from_bits(0b0010),
        expires_ms: SOON - 1,
        uses: Some(1),
        ..grant(&nodes, 1)
    };
    let token = issued(&nodes).derive(&signer(&nodes.holder), narrower).unwrap();
    assert_eq!(verify(&nodes, &token, &nodes.thief).unwrap(), 2);
    assert!(matches!(
        verify(&nodes, &token, &nodes.holder),
        Err(CapabilityError::OtherHolder { .. })
    ));
}

#[test]
fn what_claims_more_than_before_is_neither_made_nor_taken() {
    let nodes = nodes();
    let wider: [fn(&mut Grant); 6] = [
        |grant| grant.rights = Rights::from_bits(0b1110),
        |grant| grant.expires_ms += 1,
        |grant| grant.uses = Some(6),
        |grant| grant.uses = None,
        |grant| grant.message = MessageId::of("test.other"),
        |grant| grant.incarnation += 1,
    ];
    for widen in wider {
        let mut claim = grant(&nodes, 2);
        widen(&mut claim);
        let own = signer(&nodes.holder);
        let refused = issued(&nodes).derive(&own, claim.clone()).err();
        assert!(matches!(refused, Some(CapabilityError::Widened)));
        // A holder that signs it all the same.
        let forced = Token::sign(issued(&nodes).blocks, &own, claim).unwrap();
        let refused = verify(&nodes, &forced, &nodes.holder).unwrap_err();
        assert!(matches!(refused, CapabilityError::Widened), "{refused}");
    }
}

#[test]
fn a_block_counts_only_with_the_signature_of_who_held_it_before() {
    let nodes = nodes();
    // A stranger makes one up, derives from one that isn't its own, and cuts a narrowing off.
    let made_up = Token::issue(&signer(&nodes.thief), grant(&nodes, 1)).unwrap();
    assert!(matches!(verify(&nodes, &made_up, &nodes.holder), Err(CapabilityError::Forged)));
    let own = Grant { holder: nodes.thief.id(), ..grant(&nodes, 2) };
    let taken = issued(&nodes).derive(&signer(&nodes.thief), own).unwrap();
    assert!(matches!(verify(&nodes, &taken, &nodes.thief), Err(CapabilityError::Forged)));
    let given = Grant { holder: nodes.thief.id(), uses: Some(1), ..grant(&nodes, 2) };
    let mut cut = issued(&nodes).derive(&signer(&nodes.holder), given).unwrap();
    cut.blocks.pop();
    let cut = Token::sign(cut.blocks, &signer(&nodes.thief), grant(&nodes, 3)).unwrap();
    assert!(matches!(verify(&nodes, &cut, &nodes.holder), Err(CapabilityError::Forged)));
}

/// As a node has it that brings a key of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates are checked against the machine's time"
)]
fn with_p256() -> Credential {
    let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
    let authority = Authority::create("test", now).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let signed = authority.sign(request.der(), "holder", &[], hour, now).unwrap();
    Credential::from_pem(&signed.certificate_pem, &key.serialize_pem()).unwrap()
}

#[test]
fn another_signature_of_the_same_makes_no_other_block() {
    let nodes = Nodes { holder: with_p256(), ..nodes() };
    let (parent, next) = (issued(&nodes).to_text(), grant(&nodes, 2));
    let derive = || {
        let parent = Token::from_text(&parent).unwrap();
        parent.derive(&signer(&nodes.holder), next.clone()).unwrap()
    };
    // ECDSA signs with a number of its own each time.
    let (one, other) = (derive(), derive());
    assert_ne!(one.to_text(), other.to_text());
    let keys = |token: &Token| {
        let blocks = token.verify(nodes.issuer.id(), START, nodes.holder.id(), NOW).unwrap();
        blocks.iter().map(|(key, _)| *key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&one), keys(&other));
    let changed = Token::from_text(&parent).unwrap();
    let changed = changed.derive(&signer(&nodes.holder), Grant { uses: Some(1), ..next.clone() });
    assert_ne!(keys(&one)[1], keys(&changed.unwrap())[1]);
}

#[test]
fn a_chain_has_a_bound() {
    let nodes = nodes();
    let (mut token, own) = (issued(&nodes), signer(&nodes.holder));
    for id in 1..u8::try_from(CAPABILITY_BLOCKS).unwrap() {
        token = token.derive(&own, grant(&nodes, id)).unwrap();
    }
    assert!(token.to_text().len() < CAPABILITY_TOKEN_BYTES);
    assert!(matches!(token.derive(&own, grant(&nodes, 9)), Err(CapabilityError::TooLong)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_refused(text in "(nfc1\\.)?[A-Za-z0-9_-]{0,400}") {
        prop_assert!(Token::from_text(&text).is_err());
    }
}

#[test]
fn no_change_of_a_byte_leaves_a_token_good() {
    let nodes = nodes();
    let narrower = Grant { uses: Some(1), ..grant(&nodes, 2) };
    let token = issued(&nodes).derive(&signer(&nodes.holder), narrower).unwrap();
    let bytes = token.parcel().as_raw().as_bytes().to_vec();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let raw = RawParcel::new(MessageId::of(Chain::NAME), Chain::VERSION, &changed);
            let Ok(parcel) = raw.open::<Chain>() else { continue };
            let Ok(read) = Token::from_parcel(parcel) else { continue };
            // Bytes between the parts of an archive say nothing.
            let same =
                read.blocks.iter().map(Signed::hash).eq(token.blocks.iter().map(Signed::hash));
            prop_assert_eq_or_refused(same, &verify(&nodes, &read, &nodes.holder), at);
        }
    }
}

fn prop_assert_eq_or_refused(same: bool, verified: &Result<usize, CapabilityError>, at: usize) {
    assert_eq!(verified.is_ok(), same, "byte {at}: {verified:?}");
}
