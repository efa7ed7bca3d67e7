//! The keys of `deploy`.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/deploy.md)

use super::{INT, NATURAL, Object, Shape, TEXT_LIST, allowed, convert, inner, model, refused};

const HOST: &str = "it gives the container parts of the host, which the model does not have";
const ROLLBACK: &str = "a rollback is of the whole app, and goes as updates do";

pub(super) const DEPLOY: Object = Object {
    keys: &[
        allowed("endpoint_mode", Shape::Text, "requests are balanced by the service's proxy"),
        allowed("labels", Shape::Labels, "the model has labels of the service only"),
        model("mode", Shape::Text, "replicas, jobs"),
        inner("placement", Shape::Object(&PLACEMENT)),
        model("replicas", NATURAL, "replicas"),
        inner("resources", Shape::Object(&RESOURCES)),
        inner("restart_policy", Shape::Object(&RESTART_POLICY)),
        allowed("rollback_config", Shape::Object(&UPDATE_CONFIG), ROLLBACK),
        inner("update_config", Shape::Object(&UPDATE_CONFIG)),
    ],
    required: &[],
};

const PLACEMENT: Object = Object {
    keys: &[
        model("constraints", TEXT_LIST, "placement.constraints"),
        allowed("max_replicas_per_node", NATURAL, "the model has a spread only"),
        inner("preferences", Shape::List(&Shape::Object(&PREFERENCE))),
    ],
    required: &[],
};

const PREFERENCE: Object =
    Object { keys: &[model("spread", Shape::Text, "placement.spread")], required: &[] };

const RESOURCES: Object = Object {
    keys: &[
        inner("limits", Shape::Object(&LIMITS)),
        inner("reservations", Shape::Object(&RESERVATIONS)),
    ],
    required: &[],
};

const LIMITS: Object = Object {
    keys: &[
        model("cpus", Shape::Number, "resources.cpu_limit"),
        model("memory", Shape::Bytes, "resources.memory_limit"),
        allowed("pids", INT, "the model has only limits of CPU time and memory"),
    ],
    required: &[],
};

const RESERVATIONS: Object = Object {
    keys: &[
        model("cpus", Shape::Number, "resources.cpu_request"),
        model("memory", Shape::Bytes, "resources.memory_request"),
        refused("devices", Shape::List(&Shape::Object(&DEVICE_REQUEST)), HOST),
        refused("generic_resources", Shape::List(&Shape::Object(&GENERIC)), HOST),
    ],
    required: &[],
};

pub(super) const DEVICE_REQUEST: Object = Object {
    keys: &[
        inner("capabilities", TEXT_LIST),
        inner("count", Shape::Short(convert::device_count, &INT)),
        inner("device_ids", TEXT_LIST),
        inner("driver", Shape::Text),
        inner("options", Shape::Labels),
    ],
    required: &[],
};

const GENERIC: Object =
    Object { keys: &[inner("discrete_resource_spec", Shape::Object(&DISCRETE))], required: &[] };

const DISCRETE: Object =
    Object { keys: &[inner("kind", Shape::Text), inner("value", INT)], required: &[] };

const RESTART_POLICY: Object = Object {
    keys: &[
        model("condition", Shape::Text, "restart"),
        allowed("delay", Shape::Duration, "the backend waits longer after each restart"),
        allowed("max_attempts", NATURAL, "the backend waits longer after each restart"),
        allowed("window", Shape::Duration, "the backend waits longer after each restart"),
    ],
    required: &[],
};

const UPDATE_CONFIG: Object = Object {
    keys: &[
        allowed("delay", Shape::Duration, "an update goes on when instances are ready"),
        model("failure_action", Shape::Text, "update.on_failure"),
        allowed("max_failure_ratio", Shape::Number, "one instance that fails is a failure"),
        model("monitor", Shape::Duration, "update.monitor"),
        model("order", Shape::Word(&["start-first", "stop-first"]), "update.strategy"),
        model("parallelism", NATURAL, "update.strategy"),
    ],
    required: &[],
};
