//! Debian's archive keys, and what they signed: OpenPGP, RFC 9580.

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::VerifyingKey;

/// From Debian's package debian-archive-keyring 2025.1: exported without the signatures of others.
const DEBIAN: [&[u8]; 5] = [
    include_bytes!("keys/bookworm-automatic.pgp"),
    include_bytes!("keys/bookworm-security-automatic.pgp"),
    include_bytes!("keys/trixie-automatic.pgp"),
    include_bytes!("keys/trixie-security-automatic.pgp"),
    include_bytes!("keys/trixie-stable.pgp"),
];

/// Why a text is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no text with OpenPGP signatures.
    #[error("the file is not signed in clear text")]
    NotSigned,
    /// None of its signatures is good, and made by a trusted key that had not expired.
    #[error("no good signature by a trusted key (signed by {})", .signers.join(", "))]
    NotTrusted {
        /// The keys that its signatures name.
        signers: Vec<String>,
    },
    /// A key that is to be trusted cannot be read.
    #[error("a trusted key cannot be read")]
    BadKey,
}

/// Keys that are trusted to sign a repository.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl Keyring {
    /// Debian's own.
    pub fn debian() -> Result<Self, Error> {
        Self::of(DEBIAN)
    }

    /// The keys in some binary keyrings, one in each.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Error> {
        let read = |bytes| SignedPublicKey::from_bytes(bytes).map_err(|_| Error::BadKey);
        Ok(Self { keys: keys.into_iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The text inside, if any one of its signatures is good: Debian signs with the keys of two
    /// releases, so that both the old and the new can check.
    pub fn verify(&self, signed: &str) -> Result<String, Error> {
        let (message, _) =
            CleartextSignedMessage::from_string(signed).map_err(|_| Error::NotSigned)?;
        let text = message.signed_text();
        let good = |signature: &Signature| {
            is_strong(signature) && self.keys.iter().any(|key| made_by(signature, key, &text))
        };
        if message.signatures().iter().any(good) {
            return Ok(text.replace("\r\n", "\n"));
        }
        let signers = message
            .signatures()
            .iter()
            .flat_map(|signature| signature.issuer_fingerprint())
            .map(|fingerprint| format!("{fingerprint:X}"))
            .collect();
        Err(Error::NotTrusted { signers })
    }
}

/// A signature over a document, with a hash that still holds.
fn is_strong(signature: &Signature) -> bool {
    matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary))
        && matches!(
            signature.hash_alg(),
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
        )
}

fn made_by(signature: &Signature, key: &SignedPublicKey, text: &str) -> bool {
    let primary: &PublicKey = &key.primary_key;
    let own = key.details.users.iter().flat_map(|user| &user.signatures);
    if fits(signature, primary, own.chain(&key.details.direct_signatures), text) {
        return true;
    }
    key.public_subkeys.iter().any(|subkey| {
        let subkey_key: &PublicSubkey = &subkey.key;
        fits(signature, subkey_key, &subkey.signatures, text)
            && subkey.verify_bindings(primary).is_ok()
    })
}

/// Whether the key made the signature at a time when it was valid; what its owner said about it
/// (`own`) tells until when that was.
fn fits<'a>(
    signature: &Signature,
    key: &impl VerifyingKey,
    own: impl IntoIterator<Item = &'a Signature>,
    text: &str,
) -> bool {
    if signature.verify(key, text.as_bytes()).is_err() {
        return false;
    }
    let Some(made) = signature.created() else { return false };
    let born = key.created_at();
    let lives = own.into_iter().filter_map(Signature::key_expiration_time);
    let lives = lives.map(|lives| lives.as_secs()).max();
    made.as_secs() >= born.as_secs()
        && lives.is_none_or(|lives| {
            u64::from(made.as_secs()) < u64::from(born.as_secs()) + u64::from(lives)
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use pgp::composed::{KeyType, SecretKeyParamsBuilder, SignedSecretKey};
    use pgp::ser::Serialize;
    use pgp::types::Password;

    /// A key pair for tests: its binary public key, and what signs with it.
    pub(in crate::debian) fn key() -> (Vec<u8>, SignedSecretKey) {
        let secret = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .primary_user_id("Archive of the tests".into())
            .build()
            .unwrap()
            .generate(rand::thread_rng())
            .unwrap();
        let public = secret.to_public_key().to_bytes().unwrap();
        (public, secret)
    }

    pub(in crate::debian) fn sign(secret: &SignedSecretKey, text: &str) -> String {
        let rng = rand::thread_rng();
        CleartextSignedMessage::sign(rng, text, &secret.primary_key, &Password::empty())
            .unwrap()
            .to_armored_string(Default::default())
            .unwrap()
    }

    #[test]
    fn debians_keys_are_read_and_bound() {
        let keyring = Keyring::debian().unwrap();
        assert_eq!(keyring.keys.len(), DEBIAN.len());
        for key in &keyring.keys {
            key.verify_bindings().unwrap();
        }
    }

    #[test]
    fn a_signed_text_comes_out_as_it_went_in() {
        let (public, secret) = key();
        let text = "Origin: Tests\n- dash\nlast\n";
        let signed = sign(&secret, text);
        let keyring = Keyring::of([&public[..]]).unwrap();
        assert_eq!(keyring.verify(&signed).unwrap().trim_end(), text.trim_end());
    }

    #[test]
    fn a_changed_text_or_a_strange_key_is_not_trusted() {
        let (public, secret) = key();
        let signed = sign(&secret, "Origin: Tests\n");
        let keyring = Keyring::of([&public[..]]).unwrap();
        let changed = signed.replace("Tests", "Texts");
        assert!(matches!(keyring.verify(&changed), Err(Error::NotTrusted { .. })));
        let (_, other) = key();
        let strange = sign(&other, "Origin: Tests\n");
        assert!(matches!(keyring.verify(&strange), Err(Error::NotTrusted { .. })));
        assert_eq!(keyring.verify("Origin: Tests\n"), Err(Error::NotSigned));
        assert_eq!(Keyring::of([&b"junk"[..]]).unwrap_err(), Error::BadKey);
    }

    #[test]
    fn what_stands_outside_of_the_signature_is_left_out() {
        let (public, secret) = key();
        let signed = sign(&secret, "Origin: Tests\n");
        let keyring = Keyring::of([&public[..]]).unwrap();
        for around in [format!("Evil: yes\n{signed}"), format!("{signed}Evil: yes\n")] {
            if let Ok(text) = keyring.verify(&around) {
                assert!(!text.contains("Evil"), "{text}");
            }
        }
    }
}
