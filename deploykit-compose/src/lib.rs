//! Compose files, loaded as the
//! [Compose specification](https://github.com/compose-spec/compose-spec) says.

mod app;
mod diagnostic;
mod discover;
mod dotenv;
mod export;
mod interpolate;
mod load;
mod merge;
mod schema;
mod short;
mod yaml;

pub use app::{Converted, SecretSource, examine, to_app};
pub use diagnostic::{ComposeError, Diagnostic};
pub use discover::Selection;
pub use dotenv::{DotenvError, dotenv};
pub use export::from_app;
pub use interpolate::{InterpolateError, interpolate};
pub use load::{ComposeFile, LoadOptions, Project, Variables, load};
pub use merge::merge;
pub use schema::keys_table;
pub use short::{
    PortError, PortShort, VolumeError, VolumeKind, VolumeShort, format_duration, parse_bytes,
    parse_duration, parse_port, parse_volume,
};
pub use yaml::{Entry, Mapping, Node, Span, Value, to_yaml};

/// Reads one YAML document as a tree.
///
/// ```
/// let node = deploykit_compose::from_yaml("services: {web: {image: nginx}}")?;
/// assert_eq!(node.get("services").and_then(|s| s.get("web")).and_then(|w| w.str("image")), Some("nginx"));
/// # Ok::<(), deploykit_compose::ComposeError>(())
/// ```
///
/// # Errors
/// [`ComposeError`] where the text is not YAML, or holds no or several documents.
pub fn from_yaml(text: &str) -> Result<Node, ComposeError> {
    let source = diagnostic::Source::new("document".into(), text.to_owned());
    let failed = |problems| ComposeError::new(problems, std::sync::Arc::new(vec![source.clone()]));
    let (mut documents, _) = yaml::parse(text, 0).map_err(failed)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(failed(vec![Diagnostic::new(Span::default(), "", "there is not one document")])),
    }
}
