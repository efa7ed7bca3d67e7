//! The keys of the file itself, and of networks, volumes, secrets, configs and models.

use super::service::SERVICE;
use super::{INT, Object, Shape, TEXT_LIST, allowed, convert, inner, loaded, model, refused};

const EXTERNAL: &str = "what is not part of the app cannot be deployed with it";
const ENGINE: &str = "it is a matter of the container engine, which the model does not have";
const OWN_NAME: &str = "the backend names what belongs to an app";

/// The keys of a Compose file.
pub(crate) const PROJECT: Object = Object {
    keys: &[
        model("configs", Shape::Named(&Shape::Object(&CONFIG)), "configs"),
        loaded("include", Shape::Any),
        inner("models", Shape::Named(&Shape::Object(&MODEL))),
        model("name", Shape::Text, "name"),
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
    ],
    required: &[],
};

const EXTERNALLY: Shape = Shape::Short(convert::external, &Shape::Bool);

const NETWORK: Object = Object {
    keys: &[
        allowed("attachable", Shape::Bool, ENGINE),
        allowed("driver", Shape::Text, ENGINE),
        allowed("driver_opts", Shape::Map(&Shape::Scalar), ENGINE),
        allowed("enable_ipv4", Shape::Bool, ENGINE),
        allowed("enable_ipv6", Shape::Bool, ENGINE),
        refused("external", EXTERNALLY, EXTERNAL),
        model("internal", Shape::Bool, "networks.internal"),
        allowed("ipam", Shape::Object(&IPAM), "the backend chooses addresses"),
        allowed("labels", Shape::Labels, ENGINE),
        allowed("name", Shape::Text, OWN_NAME),
    ],
    required: &[],
};

const IPAM: Object = Object {
    keys: &[
        inner("config", Shape::List(&Shape::Object(&POOL))),
        inner("driver", Shape::Text),
        inner("options", Shape::Map(&Shape::Text)),
    ],
    required: &[],
};

const POOL: Object = Object {
    keys: &[
        inner("aux_addresses", Shape::Map(&Shape::Text)),
        inner("gateway", Shape::Text),
        inner("ip_range", Shape::Text),
        inner("subnet", Shape::Text),
    ],
    required: &[],
};

const VOLUME: Object = Object {
    keys: &[
        allowed("driver", Shape::Text, ENGINE),
        refused("driver_opts", Shape::Map(&Shape::Scalar), "the backend decides where data lies"),
        refused("external", EXTERNALLY, EXTERNAL),
        allowed("labels", Shape::Labels, ENGINE),
        allowed("name", Shape::Text, OWN_NAME),
    ],
    required: &[],
};

const SECRET: Object = Object {
    keys: &[
        refused("driver", Shape::Text, "secrets are kept by the backend"),
        refused("driver_opts", Shape::Map(&Shape::Scalar), "secrets are kept by the backend"),
        model("environment", Shape::Text, "the value to put into the secret store"),
        model("external", EXTERNALLY, "a secret whose value is in the store"),
        model("file", Shape::Text, "the value to put into the secret store"),
        allowed("labels", Shape::Labels, ENGINE),
        allowed("name", Shape::Text, OWN_NAME),
        refused("template_driver", Shape::Text, "secrets are kept by the backend"),
    ],
    required: &[],
};

const CONFIG: Object = Object {
    keys: &[
        model("content", Shape::Text, "configs.content"),
        model("environment", Shape::Text, "configs.content"),
        refused("external", EXTERNALLY, EXTERNAL),
        model("file", Shape::Text, "configs.content"),
        allowed("labels", Shape::Labels, ENGINE),
        allowed("name", Shape::Text, OWN_NAME),
        refused("template_driver", Shape::Text, "configs are kept by the backend"),
    ],
    required: &[],
};

const MODEL: Object = Object {
    keys: &[
        refused("context_size", INT, "the app has no language models"),
        refused("model", Shape::Text, "the app has no language models"),
        refused("name", Shape::Text, "the app has no language models"),
        refused("runtime_flags", TEXT_LIST, "the app has no language models"),
    ],
    required: &["model"],
};
