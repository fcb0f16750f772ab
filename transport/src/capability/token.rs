//! The token itself: blocks, who signed them, what each allows. No I/O, no clock; the bytes are hostile.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use neuroflow_kernel::{MessageId, Parcel, RawParcel, Rights, WireMessage};

use super::signature::{Signer, is_signed};
use super::{CapabilityError, CapabilityId};
use crate::identity::NodeId;
use crate::limits::{CAPABILITY_BLOCKS, CAPABILITY_TOKEN_BYTES};

/// What every token begins with.
pub(super) const PREFIX: &str = "nfc1.";

/// The chain as it travels.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Chain {
    blocks: Vec<Block>,
}

impl WireMessage for Chain {
    const NAME: &'static str = "neuroflow.capability";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = CAPABILITY_TOKEN_BYTES;
}

impl neuroflow_kernel::WireRequest for Chain {
    type Reply = Presented;
}

/// The token was looked at; what became of it, the messages behind it are told.
#[derive(rkyv::Archive, rkyv::Serialize)]
pub(crate) struct Presented;

impl WireMessage for Presented {
    const NAME: &'static str = "neuroflow.presented";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 64;
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Block {
    /// The archive of a [`Body`].
    body: Vec<u8>,
    /// The public key of who signed it.
    signer: Vec<u8>,
    signature: Vec<u8>,
}

/// What a block says.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Body {
    id: [u8; 16],
    issuer: [u8; 32],
    incarnation: u64,
    message: u64,
    holder: [u8; 32],
    rights: u32,
    /// Milliseconds of Unix time.
    expires_ms: u64,
    /// All ones for any number.
    uses: u64,
}

impl WireMessage for Body {
    const NAME: &'static str = "neuroflow.capability.block";
    const VERSION: u16 = 1;
    const SIZE_LIMIT: usize = 256;
}

/// What a block says, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: CapabilityId,
    /// The node whose actor it's about, and which start of it.
    pub(crate) issuer: NodeId,
    pub(crate) incarnation: u64,
    /// The messages that it's for.
    pub(crate) message: MessageId,
    pub(crate) holder: NodeId,
    pub(crate) rights: Rights,
    pub(crate) expires_ms: u64,
    pub(crate) uses: Option<u64>,
}

impl Grant {
    fn archive(&self) -> Result<Vec<u8>, CapabilityError> {
        let body = Body {
            id: self.id.0,
            issuer: *self.issuer.as_bytes(),
            incarnation: self.incarnation,
            message: self.message.get(),
            holder: *self.holder.as_bytes(),
            rights: self.rights.bits(),
            expires_ms: self.expires_ms,
            uses: self.uses.unwrap_or(u64::MAX),
        };
        Ok(Parcel::archive(&body)?.as_raw().as_bytes().to_vec())
    }

    fn read(bytes: &[u8]) -> Result<Self, CapabilityError> {
        let raw = RawParcel::new(MessageId::of(Body::NAME), Body::VERSION, bytes);
        let parcel = raw.open::<Body>().map_err(|_other| CapabilityError::Malformed)?;
        let body = parcel.get();
        let uses = body.uses.to_native();
        Ok(Self {
            id: CapabilityId(body.id),
            issuer: NodeId::from(body.issuer),
            incarnation: body.incarnation.to_native(),
            message: MessageId::from(body.message.to_native()),
            holder: NodeId::from(body.holder),
            rights: Rights::from_bits(body.rights.to_native()),
            expires_ms: body.expires_ms.to_native(),
            uses: (uses != u64::MAX).then_some(uses),
        })
    }

    /// Whether `self` allows no more than `parent`.
    fn is_within(&self, parent: &Self) -> bool {
        let same = self.issuer == parent.issuer
            && self.incarnation == parent.incarnation
            && self.message == parent.message;
        let fewer = match (self.uses, parent.uses) {
            (_, None) => true,
            (Some(own), Some(parents)) => own <= parents,
            (None, Some(_)) => false,
        };
        same && fewer && parent.rights.contains(self.rights) && self.expires_ms <= parent.expires_ms
    }
}

/// A token whose form is right, and of which nothing is proved.
pub(crate) struct Token {
    blocks: Vec<Signed>,
    parcel: Parcel<Chain>,
    first: Grant,
    last: Grant,
}

struct Signed {
    body: Vec<u8>,
    signer: Vec<u8>,
    signature: Vec<u8>,
    grant: Grant,
}

/// What is hashed of a block by the next one.
type BlockHash = [u8; 32];

/// What tells a block from others: what it says, who signed it and behind which block. Not the signature: of one of
/// ECDSA anybody makes a second one that is as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey([u8; 32]);

impl Signed {
    fn hash(&self) -> BlockHash {
        sha256(&[&self.body, &self.signer, &self.signature])
    }

    fn key(&self, parent: &BlockKey) -> BlockKey {
        // The hashes of the parts are of one length each, so no two lists of parts look alike.
        BlockKey(sha256(&[&parent.0, &sha256(&[&self.body]), &sha256(&[&self.signer])]))
    }
}

#[cfg(test)]
impl BlockKey {
    pub(super) fn numbered(nth: u32) -> Self {
        Self(sha256(&[&nth.to_le_bytes()]))
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = ring::digest::digest(&ring::digest::SHA256, &parts.concat());
    hash.copy_from_slice(digest.as_ref());
    hash
}

impl Token {
    /// A first block.
    pub(crate) fn issue(signer: &Signer, grant: Grant) -> Result<Self, CapabilityError> {
        Self::sign(Vec::new(), signer, grant)
    }

    /// One block more.
    pub(crate) fn derive(self, signer: &Signer, grant: Grant) -> Result<Self, CapabilityError> {
        if self.blocks.len() >= CAPABILITY_BLOCKS {
            return Err(CapabilityError::TooLong);
        }
        if !grant.is_within(&self.last) {
            return Err(CapabilityError::Widened);
        }
        Self::sign(self.blocks, signer, grant)
    }

    /// A block more, whatever it claims.
    fn sign(
        mut blocks: Vec<Signed>,
        signer: &Signer,
        grant: Grant,
    ) -> Result<Self, CapabilityError> {
        let before = blocks.last().map_or([0; 32], Signed::hash);
        let body = grant.archive()?;
        let signature = signer.sign(&before, &body)?;
        blocks.push(Signed { body, signer: signer.public().to_vec(), signature, grant });
        let chain = Chain {
            blocks: blocks
                .iter()
                .map(|block| Block {
                    body: block.body.clone(),
                    signer: block.signer.clone(),
                    signature: block.signature.clone(),
                })
                .collect(),
        };
        Self::of(blocks, Parcel::archive(&chain)?)
    }

    fn of(blocks: Vec<Signed>, parcel: Parcel<Chain>) -> Result<Self, CapabilityError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Err(CapabilityError::Malformed);
        };
        let (first, last) = (first.grant.clone(), last.grant.clone());
        Ok(Self { blocks, parcel, first, last })
    }

    pub(crate) fn from_text(text: &str) -> Result<Self, CapabilityError> {
        let malformed = || CapabilityError::Malformed;
        if text.len() > CAPABILITY_TOKEN_BYTES.saturating_mul(2) {
            return Err(malformed());
        }
        let code = text.trim().strip_prefix(PREFIX).ok_or_else(malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(code).map_err(|_other| malformed())?;
        let raw = RawParcel::new(MessageId::of(Chain::NAME), Chain::VERSION, &bytes);
        Self::from_parcel(raw.open::<Chain>().map_err(|_other| malformed())?)
    }

    pub(crate) fn from_parcel(parcel: Parcel<Chain>) -> Result<Self, CapabilityError> {
        let chain = parcel.get();
        if chain.blocks.len() > CAPABILITY_BLOCKS {
            return Err(CapabilityError::TooLong);
        }
        let read = chain.blocks.iter().map(|block| {
            Ok(Signed {
                grant: Grant::read(&block.body)?,
                body: block.body.to_vec(),
                signer: block.signer.to_vec(),
                signature: block.signature.to_vec(),
            })
        });
        let blocks = read.collect::<Result<Vec<_>, CapabilityError>>()?;
        Self::of(blocks, parcel)
    }

    pub(crate) fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.parcel.as_raw().as_bytes()))
    }

    pub(crate) fn parcel(&self) -> &Parcel<Chain> {
        &self.parcel
    }

    pub(crate) fn first(&self) -> &Grant {
        &self.first
    }

    pub(crate) fn last(&self) -> &Grant {
        &self.last
    }

    /// Checks all of it for the node that made it: who signed, who presents it, that no block claims
    /// more than the one before, and that none has expired. Gives the blocks from the first one on.
    pub(crate) fn verify(
        &self,
        issuer: NodeId,
        incarnation: u64,
        presenter: NodeId,
        now_ms: u64,
    ) -> Result<Vec<(BlockKey, &Grant)>, CapabilityError> {
        if self.first.issuer != issuer {
            return Err(CapabilityError::OtherIssuer);
        }
        let (mut before, mut signer) = ([0; 32], issuer);
        let mut key = BlockKey([0; 32]);
        let mut parent: Option<&Grant> = None;
        let mut proved = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let by_signer = NodeId::of_public_key(&block.signer) == signer;
            if !by_signer || !is_signed(&block.signer, &before, &block.body, &block.signature) {
                return Err(CapabilityError::Forged);
            }
            if parent.is_some_and(|parent| !block.grant.is_within(parent)) {
                return Err(CapabilityError::Widened);
            }
            (before, signer, parent) = (block.hash(), block.grant.holder, Some(&block.grant));
            key = block.key(&key);
            proved.push((key, &block.grant));
        }
        if signer != presenter {
            return Err(CapabilityError::OtherHolder { holder: signer });
        }
        if self.first.incarnation != incarnation {
            return Err(CapabilityError::BeganAnew);
        }
        if self.last.expires_ms <= now_ms {
            return Err(CapabilityError::Expired);
        }
        Ok(proved)
    }
}

/// What the fuzzer calls: an archive of a token as a peer may present it, or its text. Whatever is read gives the
/// same text again, and proves nothing without its signatures.
///
/// ```sh
/// cargo +nightly fuzz run link_capability
/// ```
///
/// # Panics
/// When a token that was read isn't read again, or what isn't signed is believed.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let raw = RawParcel::new(MessageId::of(Chain::NAME), Chain::VERSION, bytes);
    let archived = raw.open::<Chain>().ok().and_then(|chain| Token::from_parcel(chain).ok());
    let text = std::str::from_utf8(bytes).ok().and_then(|text| Token::from_text(text).ok());
    for token in archived.into_iter().chain(text) {
        let again = Token::from_text(&token.to_text()).map(|again| again.last.clone());
        assert_eq!(again.ok().as_ref(), Some(&token.last), "a token is its text");
        let (issuer, holder) = (token.first.issuer, token.last.holder);
        let proved = token.verify(issuer, token.first.incarnation, holder, 0);
        if let Ok(blocks) = proved {
            assert!(blocks.windows(2).all(|pair| match pair {
                [(_, parent), (_, child)] => child.is_within(parent),
                _ => true,
            }));
            // Nobody but who has the issuer's key makes these: here that's the seeds' maker alone.
            let own = blocks.first().map(|(_, grant)| grant.issuer);
            assert_eq!(own, Some(issuer));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
