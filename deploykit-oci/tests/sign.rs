//! Images are signed and verified in a real registry, with the real cosign as the judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use deploykit_core::model::{AppName, ImageSpec, ResolvedImage};
use deploykit_core::{ErrorKind, ImagePolicy, SecretValue};
use deploykit_oci::sign::{Format, PrivateKey, PublicKey, SignaturePolicy, Verifier, sign};
use deploykit_oci::spec::{Descriptor, Manifest, media_type};
use deploykit_oci::{Digest, Layout, Reference, RegistryClient, join_platforms};
use support::cosign::{Cosign, key};
use support::debian::Registry;
use support::{config, image, name};

const BOTH: [Format; 2] = [Format::Bundle, Format::Tag];

/// A registry, and a client with a store of its own.
struct Bed {
    registry: Registry,
    client: RegistryClient,
    layout: Layout,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Option<Self> {
        let registry = Registry::start(None)?;
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(folder.path()).unwrap();
        let client = RegistryClient::new(config());
        Some(Self { registry, client, layout, _folder: folder })
    }

    /// Pushes an image of a content of its own.
    async fn push(&self, rest: &str, content: &str) -> (Reference, Descriptor) {
        let built = image(&self.layout, content.as_bytes());
        let to = name(&self.registry.host, rest);
        self.client.push(&self.layout, &built, &to, &[]).await.unwrap();
        (to, built)
    }

    /// Puts what stands under one tag under another one, wherever that is.
    async fn copy(&self, from: &Reference, to: &Reference) {
        self.client.copy(from, to, &self.layout).await.unwrap();
    }
}

fn cosign_key() -> PrivateKey {
    let password = SecretValue::new("hunter2");
    PrivateKey::read(key("cosign.key"), Some(&password)).unwrap()
}

fn cosign_public() -> PublicKey {
    PublicKey::from_pem("cosign.pub", &std::fs::read_to_string(key("cosign.pub")).unwrap()).unwrap()
}

/// The tag of the signatures of a digest.
fn signature_tag(image: &Reference, digest: &Digest) -> Reference {
    image.tagged(&format!("sha256-{}.sig", digest.hex())).unwrap()
}

#[tokio::test]
async fn cosign_accepts_what_is_signed_here() {
    let (Some(bed), Some(cosign)) = (Bed::new(), Cosign::find()) else { return };
    for format in BOTH {
        let (image, built) = bed.push(&format!("shop/{format}:1"), "one").await;
        let written = sign(&bed.client, &image, &cosign_key(), &[format]).await.unwrap();
        assert_eq!(written, [format]);
        let said = cosign.verify(format, &image.to_string(), &key("cosign.pub")).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let digest = &said[0]["critical"]["image"]["docker-manifest-digest"];
        assert_eq!(digest, built.digest.as_str(), "{said}");
        let refused = cosign.verify(format, &image.to_string(), &key("openssl.pub")).unwrap_err();
        let why = ["no matching attestations", "no matching signatures", "could not verify"];
        assert!(why.iter().any(|why| refused.contains(why)), "{refused}");
    }
}

#[tokio::test]
async fn what_cosign_has_signed_is_accepted_here() {
    let (Some(bed), Some(cosign)) = (Bed::new(), Cosign::find()) else { return };
    let verifier = Verifier::new(cosign_public());
    for format in BOTH {
        let (image, built) = bed.push(&format!("shop/{format}:1"), "one").await;
        cosign.sign(format, &image.to_string());
        let verified = verifier.verify(&bed.client, &image).await.unwrap();
        assert_eq!(verified.image, image.at(built.digest.clone()).to_string());
        assert_eq!((verified.key.as_str(), verified.format), ("cosign.pub", format));
        let named = (format == Format::Tag).then(|| image.name());
        assert_eq!(verified.signed_as, named);

        // Signed again by another one, both count, for cosign too.
        let other = PrivateKey::generate().unwrap();
        assert_eq!(sign(&bed.client, &image, &other, &[format]).await.unwrap(), [format]);
        Verifier::new(other.public().clone()).verify(&bed.client, &image).await.unwrap();
        verifier.verify(&bed.client, &image).await.unwrap();
        cosign.verify(format, &image.to_string(), &key("cosign.pub")).unwrap();
        let again = sign(&bed.client, &image, &cosign_key(), &[format]).await.unwrap();
        assert_eq!(again, [], "cosign's own signature by that key is there");
    }
}

#[tokio::test]
async fn an_index_is_signed_as_a_whole() {
    let Some(bed) = Bed::new() else { return };
    let (_, built) = bed.push("shop/web:amd64", "one").await;
    let index = join_platforms(&bed.layout, &[built]).unwrap();
    let to = name(&bed.registry.host, "shop/web:1");
    bed.client.push(&bed.layout, &index, &to, &[]).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    assert_eq!(sign(&bed.client, &to, &key, &BOTH).await.unwrap(), BOTH);
    assert_eq!(sign(&bed.client, &to, &key, &BOTH).await.unwrap(), []);
    let verified = Verifier::new(key.public().clone()).verify(&bed.client, &to).await.unwrap();
    assert_eq!(verified.image, to.at(index.digest).to_string());
    assert_eq!(verified.signed_as, Some(to.name()));
}

#[tokio::test]
async fn each_doubt_has_an_error_of_its_own() {
    let Some(bed) = Bed::new() else { return };
    let ours = cosign_public();
    let verifier = Verifier::new(ours.clone());
    let refused = async |image: &Reference| {
        let error = verifier.verify(&bed.client, image).await.unwrap_err();
        assert_eq!(error.operation(), "verify the image");
        (error.kind(), error.message().to_owned())
    };
    for format in BOTH {
        let (image, built) = bed.push(&format!("shop/{format}:1"), "one").await;
        let at = image.at(built.digest.clone());
        let wanted = format!("wanted is one by the key {ours}");

        let expected = format!("{at} has no signature; {wanted}");
        assert_eq!(refused(&image).await, (ErrorKind::NotFound, expected));

        let other = PrivateKey::generate().unwrap();
        sign(&bed.client, &image, &other, &[format]).await.unwrap();
        let (kind, message) = refused(&image).await;
        assert_eq!(kind, ErrorKind::Unauthorized);
        let expected =
            format!("({format}) of {at} does not count: it was made with another key; {wanted}");
        assert!(message.ends_with(&expected), "{message}");

        sign(&bed.client, &image, &cosign_key(), &[format]).await.unwrap();
        verifier.verify(&bed.client, &image).await.unwrap();

        // The tag is moved to another image.
        let (_, tampered) = bed.push(&format!("shop/{format}:1"), "two").await;
        let tampered_at = image.at(tampered.digest.clone());
        let expected = format!("{tampered_at} has no signature; {wanted}");
        assert_eq!(refused(&image).await, (ErrorKind::NotFound, expected));

        // The signatures are put beside that one, too.
        put_beside(&bed, format, &image, &built, &tampered).await;
        let (kind, message) = refused(&image).await;
        assert_eq!(kind, ErrorKind::Unauthorized);
        let start = format!("none of the 2 signatures of {tampered_at} counts; the signature ");
        let expected = format!(
            "({format}): it was made with the key {ours}, but of another image: {}; {wanted}",
            built.digest
        );
        assert!(message.starts_with(&start) && message.ends_with(&expected), "{message}");

        // The image is put into another repository, with its signatures.
        let elsewhere = name(&bed.registry.host, &format!("evil/{format}:1"));
        bed.copy(&at, &elsewhere).await;
        copy_signatures(&bed, format, &image, &elsewhere, &built).await;
        let (kind, message) = refused(&elsewhere).await;
        assert_eq!(kind, ErrorKind::Unauthorized);
        let expected = format!(
            "({format}): it was made with the key {ours}, but for another repository: {}; {wanted}",
            image.name()
        );
        assert!(message.ends_with(&expected), "{message}");
        let promoted = verifier.clone().also_signed_as(&image);
        let verified = promoted.verify(&bed.client, &elsewhere).await.unwrap();
        assert_eq!(verified.signed_as, Some(image.name()));
    }
}

/// Makes the signatures of one image those of another one.
async fn put_beside(
    bed: &Bed,
    format: Format,
    image: &Reference,
    from: &Descriptor,
    to: &Descriptor,
) {
    if format == Format::Tag {
        let (from, to) = (&from.digest, &to.digest);
        return bed.copy(&signature_tag(image, from), &signature_tag(image, to)).await;
    }
    for bundle in bed.client.referrers(image, &from.digest, None).await.unwrap() {
        let document = bed.client.document(&image.at(bundle.digest)).await.unwrap();
        let mut manifest: Manifest = document.manifest().unwrap();
        manifest.subject = Some(Box::new(Descriptor { platform: None, ..to.clone() }));
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let place = image.at(Digest::of(&bytes));
        bed.client.push_document(&place, media_type::MANIFEST, &bytes).await.unwrap();
    }
}

/// Takes the signatures of an image to another repository.
async fn copy_signatures(
    bed: &Bed,
    format: Format,
    from: &Reference,
    to: &Reference,
    image: &Descriptor,
) {
    let digest = &image.digest;
    if format == Format::Tag {
        return bed.copy(&signature_tag(from, digest), &signature_tag(to, digest)).await;
    }
    for bundle in bed.client.referrers(from, digest, None).await.unwrap() {
        bed.copy(&from.at(bundle.digest.clone()), &to.at(bundle.digest)).await;
    }
}

#[tokio::test]
async fn a_signature_that_cannot_be_read_is_said_to_be_damaged() {
    let Some(bed) = Bed::new() else { return };
    let (image, built) = bed.push("shop/web:1", "one").await;
    let payload = b"{}".to_vec();
    let digest = bed.client.push_blob(&image, payload.clone()).await.unwrap();
    let blob = serde_json::json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": digest,
        "size": payload.len(),
        "annotations": { "dev.cosignproject.cosign/signature": "AAAA" },
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": { "mediaType": media_type::CONFIG, "digest": digest, "size": payload.len() },
        "layers": [blob],
    });
    let tag = signature_tag(&image, &built.digest);
    let bytes = manifest.to_string().into_bytes();
    bed.client.push_document(&tag, media_type::MANIFEST, &bytes).await.unwrap();
    let verifier = Verifier::new(cosign_public());
    let error = verifier.verify(&bed.client, &image).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("its payload cannot be understood"), "{error}");
}

#[tokio::test]
async fn the_policy_refuses_by_name_and_reason() {
    let Some(bed) = Bed::new() else { return };
    let (good, built) = bed.push("shop/web:1", "one").await;
    sign(&bed.client, &good, &cosign_key(), &BOTH).await.unwrap();
    let (bad, unsigned) = bed.push("shop/mail:1", "two").await;
    let policy = SignaturePolicy::new(bed.client.clone(), Verifier::new(cosign_public()))
        .from(format!("{}/shop", bed.registry.host));
    let check = async |image: &str, digest: &Digest| {
        let image = ImageSpec::Reference(image.to_owned().try_into().unwrap());
        let resolved = ResolvedImage { source: image.to_string(), digest: digest.to_string() };
        policy.check(&AppName::new("shop").unwrap(), &image, &resolved).await
    };
    check(&good.to_string(), &built.digest).await.unwrap();
    let refused = check(&bad.to_string(), &unsigned.digest).await.unwrap_err();
    let expected = format!(
        "{} has no signature; wanted is one by the key {}",
        bad.at(unsigned.digest.clone()),
        cosign_public()
    );
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::NotFound, expected.as_str()));
    // What the backend would run counts, not what the tag names.
    let refused = check(&good.to_string(), &unsigned.digest).await.unwrap_err();
    let expected = format!("{good} cannot be verified: there is no such image; look at its name");
    assert!(refused.message().starts_with(&expected), "{refused}");
    // A registry that is not there is no refusal.
    let host = bed.registry.host.clone();
    drop(bed.registry);
    let mut impatient = config();
    impatient.retry_for = std::time::Duration::ZERO;
    let gone = SignaturePolicy::new(RegistryClient::new(impatient), Verifier::new(cosign_public()));
    let image = ImageSpec::Reference(format!("{host}/shop/web:1").try_into().unwrap());
    let resolved = ResolvedImage { source: image.to_string(), digest: built.digest.to_string() };
    let app = AppName::new("shop").unwrap();
    let failed = gone.check(&app, &image, &resolved).await.unwrap_err();
    assert!(failed.is_retryable(), "{failed}");
}
