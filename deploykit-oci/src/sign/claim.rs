//! What is signed: which image, and under which repository's name. Cosign knows two forms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deploykit_core::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::PrivateKey;
use crate::digest::Digest;
use crate::reference::Reference;

/// The two ways of cosign to sign an image, and to keep the signature in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A [Sigstore bundle](https://docs.sigstore.dev/about/bundle/) of version 0.3 that refers to
    /// the image: what cosign 3 writes.
    Bundle,
    /// A "simple signing" payload under the tag `sha256-….sig`: what cosign wrote before, and
    /// what most admission controllers read.
    Tag,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bundle => "bundle",
            Self::Tag => "tag",
        })
    }
}

pub(super) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(super) const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const ENVELOPE: &str = "application/vnd.in-toto+json";
const COSIGN_TYPE: &str = "cosign container image signature";

/// A signature as it was found: what was signed, and what may be signatures of it.
#[derive(Debug)]
pub(super) struct Signed {
    /// What the signature is of, byte for byte.
    pub(super) message: Vec<u8>,
    /// In ASN.1; one that verifies is enough.
    pub(super) signatures: Vec<Vec<u8>>,
    /// What it says; not to be believed before a signature is verified.
    pub(super) claim: Claim,
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The image.
    pub(super) digest: String,
    /// The repository that the image was signed in; bundles of cosign do not tell it.
    pub(super) repository: Option<String>,
}

/// The document of a signature by tag, and what is kept beside it as its signature.
pub(super) fn payload(
    image: &Digest,
    repository: &str,
    key: &PrivateKey,
) -> Result<(Vec<u8>, String)> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": repository },
            "image": { "docker-manifest-digest": image },
            "type": COSIGN_TYPE,
        },
        "optional": null,
    });
    let payload = payload.to_string().into_bytes();
    let signature = STANDARD.encode(key.sign(&payload)?);
    Ok((payload, signature))
}

/// Reads a payload, and what was kept beside it as its signature.
pub(super) fn read_payload(payload: Vec<u8>, signature: &str) -> Result<Signed, &'static str> {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        identity: Identity,
        image: Image,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Identity {
        #[serde(rename = "docker-reference")]
        reference: String,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "docker-manifest-digest")]
        digest: String,
    }
    let said: Payload =
        serde_json::from_slice(&payload).map_err(|_| "its payload cannot be understood")?;
    if said.critical.kind != COSIGN_TYPE {
        return Err("its payload is not of the type that cosign signs");
    }
    let signature = STANDARD.decode(signature).map_err(|_| "its signature is not base64")?;
    let repository = Some(repository(&said.critical.identity.reference));
    let claim = Claim { digest: said.critical.image.digest, repository };
    Ok(Signed { message: payload, signatures: vec![signature], claim })
}

/// The document of a bundle.
pub(super) fn bundle(image: &Digest, repository: &str, key: &PrivateKey) -> Result<Vec<u8>> {
    let statement = json!({
        "_type": STATEMENT,
        "subject": [{ "name": repository, "digest": { "sha256": image.hex() } }],
        "predicateType": PREDICATE,
        "predicate": {},
    });
    let statement = statement.to_string().into_bytes();
    let signature = key.sign(&authenticated(&statement))?;
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": key.public().hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": ENVELOPE,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    });
    Ok(bundle.to_string().into_bytes())
}

/// Reads a bundle; nothing where it is one of something else than cosign's signatures of images.
pub(super) fn read_bundle(bundle: &[u8]) -> Result<Option<Signed>, &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Bundle {
        media_type: String,
        dsse_envelope: Option<Envelope>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope {
        payload: String,
        payload_type: String,
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        sig: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Statement {
        #[serde(rename = "_type")]
        kind: String,
        subject: Vec<Subject>,
        predicate_type: String,
    }
    #[derive(Deserialize)]
    struct Subject {
        name: Option<String>,
        #[serde(default)]
        digest: std::collections::BTreeMap<String, Value>,
    }
    let bundle: Bundle =
        serde_json::from_slice(bundle).map_err(|_| "its bundle cannot be understood")?;
    if bundle.media_type != BUNDLE {
        return Err("its bundle is not of version 0.3");
    }
    let Some(envelope) = bundle.dsse_envelope.filter(|e| e.payload_type == ENVELOPE) else {
        return Ok(None);
    };
    let base64 = "its bundle has what is not base64";
    let statement = STANDARD.decode(&envelope.payload).map_err(|_| base64)?;
    let said: Statement =
        serde_json::from_slice(&statement).map_err(|_| "its statement cannot be understood")?;
    if said.kind != STATEMENT || said.predicate_type != PREDICATE {
        return Ok(None);
    }
    let decode = |s: &Signature| STANDARD.decode(&s.sig).map_err(|_| base64);
    let signatures = envelope.signatures.iter().map(decode).collect::<Result<_, _>>()?;
    let [subject] = said.subject.as_slice() else { return Err("it is not of one image") };
    let hex = subject.digest.get("sha256").and_then(Value::as_str);
    let digest = format!("sha256:{}", hex.ok_or("it is of something that is no image")?);
    let repository = subject.name.as_deref().filter(|name| !name.is_empty()).map(repository);
    let claim = Claim { digest, repository };
    Ok(Some(Signed { message: authenticated(&statement), signatures, claim }))
}

/// What a repository is called in a signature: cosign has an older name for Docker Hub.
pub(super) fn name(image: &Reference) -> String {
    match image.domain() {
        "docker.io" => format!("index.docker.io/{}", image.path()),
        _ => image.name(),
    }
}

/// The repository that a signature names; some signers add a tag or a digest.
fn repository(named: &str) -> String {
    Reference::parse_normalized(named).map_or_else(|_| named.to_owned(), |r| r.name())
}

/// What an envelope's signature is of
/// (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).
fn authenticated(statement: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {ENVELOPE} {} ", ENVELOPE.len(), statement.len());
    [head.as_bytes(), statement].concat()
}
