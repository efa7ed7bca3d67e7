//! The keys of the file itself, and of networks, volumes, secrets, configs and models.

use super::service::SERVICE;
use super::{
    EXACT, OPTIONS, Object, Shape, TEXT_LIST, allowed, convert, inner, loaded, model, object,
    refused, requiring,
};

const EXTERNAL: &str = "what is not part of the app cannot be deployed with it";
const ENGINE: &str = "it is a matter of the container engine, which the model does not have";
const OWN_NAME: &str = "the backend names what belongs to an app";

/// The keys of a Compose file.
pub(crate) const PROJECT: Object = object(&[
    model("configs", Shape::Named(&Shape::Object(&CONFIG)), "configs"),
    loaded("include", Shape::Any),
    inner("models", Shape::Named(&Shape::Object(&MODEL))),
    model("name", Shape::Optional(&Shape::Text), "name"),
    model(
        "networks",
        Shape::Named(&Shape::Short(convert::something, &Shape::Object(&NETWORK))),
        "networks",
    ),
    model("secrets", Shape::Named(&Shape::Object(&SECRET)), "secrets"),
    inner("services", Shape::Named(&Shape::Object(&SERVICE))),
    loaded("version", Shape::Text),
    model(
        "volumes",
        Shape::Named(&Shape::Short(convert::something, &Shape::Object(&VOLUME))),
        "volumes",
    ),
]);

const EXTERNALLY: Shape = Shape::Short(convert::external, &Shape::Bool);

const NETWORK: Object = object(&[
    allowed("attachable", Shape::Bool, ENGINE),
    allowed("driver", Shape::Text, ENGINE),
    allowed("driver_opts", OPTIONS, ENGINE),
    allowed("enable_ipv4", Shape::Bool, ENGINE).meant(),
    allowed("enable_ipv6", Shape::Bool, ENGINE).meant(),
    refused("external", EXTERNALLY, EXTERNAL),
    model("internal", Shape::Bool, "networks.internal"),
    allowed("ipam", Shape::Object(&IPAM), "the backend chooses addresses").plain(),
    allowed("labels", Shape::Labels, ENGINE),
    allowed("name", Shape::Text, OWN_NAME),
]);

const IPAM: Object = object(&[
    inner("config", Shape::List(&Shape::Object(&POOL))),
    inner("driver", Shape::Text),
    inner("options", Shape::Map(&Shape::Text)),
]);

const POOL: Object = object(&[
    inner("aux_addresses", Shape::Map(&Shape::Text)),
    inner("gateway", Shape::Text),
    inner("ip_range", Shape::Text),
    inner("subnet", Shape::Text),
]);

const VOLUME: Object = object(&[
    allowed("driver", Shape::Text, ENGINE),
    refused("driver_opts", OPTIONS, "the backend decides where data lies"),
    refused("external", EXTERNALLY, EXTERNAL),
    allowed("labels", Shape::Once(&Shape::Labels), ENGINE),
    allowed("name", Shape::Text, OWN_NAME),
]);

const SECRET: Object = object(&[
    refused("driver", Shape::Text, "secrets are kept by the backend"),
    refused(
        "driver_opts",
        Shape::Map(&Shape::Scalar(&[super::Kind::Int])),
        "secrets are kept by the backend",
    ),
    model("environment", Shape::Text, "the value to put into the secret store"),
    model("external", EXTERNALLY, "a secret whose value is in the store"),
    model("file", Shape::Text, "the value to put into the secret store"),
    allowed("labels", Shape::Once(&Shape::Labels), ENGINE),
    allowed("name", Shape::Text, OWN_NAME),
    refused("template_driver", Shape::Text, "secrets are kept by the backend"),
]);

const CONFIG: Object = object(&[
    model("content", Shape::Text, "configs.content"),
    model("environment", Shape::Text, "configs.content"),
    refused("external", EXTERNALLY, EXTERNAL),
    model("file", Shape::Text, "configs.content"),
    allowed("labels", Shape::Once(&Shape::Labels), ENGINE),
    allowed("name", Shape::Text, OWN_NAME),
    refused("template_driver", Shape::Text, "configs are kept by the backend"),
]);

const MODEL: Object = requiring(
    &["model"],
    &[
        refused("context_size", EXACT, "the app has no language models"),
        refused("model", Shape::Text, "the app has no language models"),
        refused("name", Shape::Text, "the app has no language models"),
        refused("runtime_flags", TEXT_LIST, "the app has no language models"),
    ],
);
