//! The keys of `deploy`.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/deploy.md)

use super::{
    CUT, INT, Key, NATURAL, Object, Shape, TEXT_LIST, TEXT_SET, allowed, convert, inner, model,
    object, refused, requiring,
};

const HOST: &str = "it gives the container parts of the host, which the model does not have";
const ROLLBACK: &str = "a rollback is of the whole app, and goes as updates do";

pub(super) const DEPLOY: Object = object(&[
    model("endpoint_mode", Shape::Text, "endpoint_mode"),
    allowed("labels", Shape::Labels, "the model has labels of the service only"),
    model("mode", Shape::Text, "replicas, jobs"),
    inner("placement", Shape::Object(&PLACEMENT)).plain(),
    model("replicas", INT, "replicas").meant(),
    inner("resources", Shape::Object(&RESOURCES)).plain(),
    inner("restart_policy", Shape::Object(&RESTART_POLICY)),
    allowed("rollback_config", Shape::Object(&UPDATE_CONFIG), ROLLBACK),
    inner("update_config", Shape::Object(&UPDATE_CONFIG)),
]);

const PLACEMENT: Object = object(&[
    model("constraints", TEXT_LIST, "placement.constraints"),
    allowed("max_replicas_per_node", NATURAL, "the model has a spread only"),
    inner("preferences", Shape::List(&Shape::Object(&PREFERENCE))),
]);

const PREFERENCE: Object = object(&[model("spread", Shape::Text, "placement.spread")]);

const RESOURCES: Object = object(&[
    inner("limits", Shape::Object(&LIMITS)),
    inner("reservations", Shape::Object(&RESERVATIONS)),
]);

const LIMITS: Object = object(&[
    model("cpus", Shape::Number, "resources.cpu_limit"),
    model("memory", Shape::Short(convert::text, &Shape::Bytes), "resources.memory_limit"),
    allowed("pids", INT, "the model has only limits of CPU time and memory"),
]);

const RESERVATIONS: Object = object(&[
    model("cpus", Shape::Number, "resources.cpu_request"),
    model("memory", Shape::Short(convert::text, &Shape::Bytes), "resources.memory_request"),
    refused("devices", Shape::List(&Shape::Object(&RESERVED_DEVICE)), HOST),
    refused("generic_resources", Shape::List(&Shape::Object(&GENERIC)), HOST),
]);

const DEVICE_KEYS: &[Key] = &[
    inner("capabilities", TEXT_SET),
    inner("count", Shape::Short(convert::device_count, &INT)),
    inner("device_ids", TEXT_SET),
    inner("driver", Shape::Text),
    inner("options", Shape::Once(&Shape::Labels)),
];

pub(super) const DEVICE_REQUEST: Object = object(DEVICE_KEYS);

const RESERVED_DEVICE: Object = requiring(&["capabilities"], DEVICE_KEYS);

const GENERIC: Object = object(&[inner(
    "discrete_resource_spec",
    Shape::Short(convert::discrete, &Shape::Object(&DISCRETE)),
)]);

const DISCRETE: Object = object(&[inner("kind", Shape::Text).meant(), inner("value", CUT).meant()]);

const RESTART_POLICY: Object = object(&[
    model("condition", Shape::Text, "restart"),
    allowed("delay", Shape::Duration, "the backend waits longer after each restart"),
    allowed("max_attempts", NATURAL, "the backend waits longer after each restart").meant(),
    allowed("window", Shape::Duration, "the backend waits longer after each restart"),
]);

const UPDATE_CONFIG: Object = object(&[
    allowed("delay", Shape::Duration, "an update goes on when instances are ready").plain(),
    model("failure_action", Shape::Text, "update.on_failure"),
    allowed("max_failure_ratio", Shape::Number, "one instance that fails is a failure"),
    model("monitor", Shape::Duration, "update.monitor").plain(),
    model("order", Shape::Word(&["start-first", "stop-first"]), "update.strategy"),
    model("parallelism", NATURAL, "update.strategy").meant(),
]);
