//! The keys of a service.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md)

use super::deploy::{DEPLOY, DEVICE_REQUEST};
use super::{
    INT, NATURAL, Object, Shape, TEXT_LIST, allowed, convert, inner, loaded, model, refused,
};

const HOST: &str = "it gives the container parts of the host, which the model does not have";
const ENGINE: &str = "it is a matter of the container engine, which the model does not have";
const TUNING: &str = "the model has only limits and reservations of CPU time and memory";
const BUILDS: &str = "the model has no builds; build the image first and name it in `image`";
const ADDRESS: &str = "the backend chooses addresses and names";

pub(super) const SERVICE: Object = Object {
    keys: &[
        allowed("annotations", Shape::Labels, "the model has labels only"),
        allowed("attach", Shape::Bool, "logs are read on demand, from any service"),
        inner("blkio_config", Shape::Object(&BLKIO)),
        allowed("build", Shape::Short(convert::build, &Shape::Object(&BUILD)), BUILDS),
        refused("cap_add", TEXT_LIST, HOST),
        refused("cap_drop", TEXT_LIST, "the model has no capabilities of processes"),
        refused("cgroup", Shape::Word(&["host", "private"]), HOST),
        refused("cgroup_parent", Shape::Text, HOST),
        model("command", Shape::Command, "args"),
        inner(
            "configs",
            Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT))),
        ),
        allowed("container_name", Shape::Text, ADDRESS),
        allowed("cpu_count", NATURAL, TUNING),
        allowed("cpu_percent", Shape::Number, TUNING),
        allowed("cpu_period", Shape::Scalar, TUNING),
        allowed("cpu_quota", INT, TUNING),
        allowed("cpu_rt_period", Shape::Scalar, TUNING),
        allowed("cpu_rt_runtime", Shape::Scalar, TUNING),
        allowed("cpu_shares", INT, TUNING),
        model("cpus", Shape::Number, "resources.cpu_limit"),
        allowed("cpuset", Shape::Text, TUNING),
        inner("credential_spec", Shape::Object(&CREDENTIAL_SPEC)),
        inner(
            "depends_on",
            Shape::Short(convert::depends_on, &Shape::Named(&Shape::Object(&DEPENDENCY))),
        ),
        inner("deploy", Shape::Optional(&Shape::Object(&DEPLOY))),
        inner("develop", Shape::Optional(&Shape::Object(&DEVELOP))),
        refused("device_cgroup_rules", TEXT_LIST, HOST),
        refused(
            "devices",
            Shape::List(&Shape::Short(convert::device, &Shape::Object(&DEVICE))),
            HOST,
        ),
        allowed("dns", Shape::Texts, "names are resolved by the backend"),
        allowed("dns_opt", TEXT_LIST, "names are resolved by the backend"),
        allowed("dns_search", Shape::Texts, "names are resolved by the backend"),
        allowed("domainname", Shape::Text, ADDRESS),
        model("entrypoint", Shape::Command, "command"),
        loaded(
            "env_file",
            Shape::Short(
                convert::one_or_several,
                &Shape::List(&Shape::Short(convert::env_file, &Shape::Object(&ENV_FILE))),
            ),
        ),
        model("environment", Shape::Variables, "env"),
        model("expose", Shape::List(&Shape::Scalar), "ports (internal)"),
        loaded("extends", Shape::Any),
        refused("external_links", TEXT_LIST, "what it names is outside of the app"),
        allowed(
            "extra_hosts",
            Shape::Short(convert::hosts, &TEXT_LIST),
            "names are resolved by the backend",
        ),
        refused(
            "gpus",
            Shape::Short(convert::gpus, &Shape::List(&Shape::Object(&DEVICE_REQUEST))),
            HOST,
        ),
        refused("group_add", Shape::List(&Shape::Scalar), "the model has one user and no groups"),
        inner("healthcheck", Shape::Object(&HEALTHCHECK)),
        allowed("hostname", Shape::Text, ADDRESS),
        model("image", Shape::Text, "image"),
        allowed("init", Shape::Bool, ENGINE),
        refused("ipc", Shape::Text, HOST),
        allowed("isolation", Shape::Text, ENGINE),
        loaded("label_file", Shape::Texts),
        model("labels", Shape::Labels, "labels"),
        model("links", TEXT_LIST, "connects_to"),
        inner("logging", Shape::Object(&LOGGING)),
        allowed("mac_address", Shape::Text, ADDRESS),
        model("mem_limit", Shape::Bytes, "resources.memory_limit"),
        model("mem_reservation", Shape::Bytes, "resources.memory_request"),
        allowed("mem_swappiness", Shape::Bytes, TUNING),
        allowed("memswap_limit", Shape::Bytes, TUNING),
        inner(
            "models",
            Shape::Short(
                convert::names,
                &Shape::Named(&Shape::Optional(&Shape::Object(&MODEL_USE))),
            ),
        ),
        refused("network_mode", Shape::Text, HOST),
        inner(
            "networks",
            Shape::Short(
                convert::names,
                &Shape::Named(&Shape::Optional(&Shape::Object(&ATTACHMENT))),
            ),
        ),
        allowed("oom_kill_disable", Shape::Bool, TUNING),
        allowed("oom_score_adj", Shape::Int(-1000, 1000), TUNING),
        refused("pid", Shape::Optional(&Shape::Text), HOST),
        allowed("pids_limit", INT, TUNING),
        allowed("platform", Shape::Text, "the backend takes the image that fits its nodes"),
        inner("ports", Shape::Short(convert::ports, &Shape::List(&Shape::Object(&PORT)))),
        refused("post_start", Shape::List(&Shape::Object(&HOOK)), "the model has no hooks"),
        refused(
            "pre_start",
            Shape::List(&Shape::Object(&HOOK)),
            "the model has no hooks; write a job",
        ),
        refused("pre_stop", Shape::List(&Shape::Object(&HOOK)), "the model has no hooks"),
        refused("privileged", Shape::Bool, HOST),
        loaded("profiles", TEXT_LIST),
        refused("provider", Shape::Object(&PROVIDER), "it is run by another program"),
        allowed(
            "pull_policy",
            Shape::Short(convert::pull_policy, &Shape::Text),
            "tags are resolved to digests before each deploy",
        ),
        allowed("pull_refresh_after", Shape::Text, "tags are resolved before each deploy"),
        refused("read_only", Shape::Bool, "the model has no read-only file systems"),
        model("restart", Shape::Text, "restart, or a job where it is a dependency that completes"),
        refused("runtime", Shape::Text, ENGINE),
        model("scale", NATURAL, "replicas"),
        inner(
            "secrets",
            Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT))),
        ),
        refused("security_opt", TEXT_LIST, "the model has no security profiles"),
        allowed("shm_size", Shape::Bytes, TUNING),
        allowed("stdin_open", Shape::Bool, "services have no terminal"),
        model("stop_grace_period", Shape::Duration, "stop_grace"),
        model("stop_signal", Shape::Text, "stop_signal"),
        allowed("storage_opt", Shape::Map(&Shape::Scalar), ENGINE),
        refused("sysctls", Shape::Labels, HOST),
        model("tmpfs", Shape::Texts, "mounts (tmpfs)"),
        allowed("tty", Shape::Bool, "services have no terminal"),
        allowed("ulimits", ULIMITS, TUNING),
        refused("use_api_socket", Shape::Bool, HOST),
        model("user", Shape::Text, "user"),
        refused("userns_mode", Shape::Text, HOST),
        refused("uts", Shape::Text, HOST),
        inner(
            "volumes",
            Shape::List(&Shape::Short(convert::volume, &Shape::Object(&VOLUME_MOUNT))),
        ),
        refused("volumes_from", TEXT_LIST, "name the volumes in each service"),
        model("working_dir", Shape::Text, "workdir"),
    ],
    required: &[],
};

pub(super) const ULIMITS: Shape = Shape::Map(&Shape::Short(convert::ulimit, &Shape::Any));

const BUILD: Object = Object {
    keys: &[
        inner("additional_contexts", Shape::Labels),
        inner("args", Shape::Variables),
        inner("cache_from", TEXT_LIST),
        inner("cache_to", TEXT_LIST),
        inner("context", Shape::Text),
        inner("dockerfile", Shape::Text),
        inner("dockerfile_inline", Shape::Text),
        inner("entitlements", TEXT_LIST),
        inner("extra_hosts", Shape::Short(convert::hosts, &TEXT_LIST)),
        inner("isolation", Shape::Text),
        inner("labels", Shape::Labels),
        inner("network", Shape::Text),
        inner("no_cache", Shape::Bool),
        inner("no_cache_filter", Shape::Texts),
        inner("platforms", TEXT_LIST),
        inner("privileged", Shape::Bool),
        inner("provenance", Shape::Scalar),
        inner("pull", Shape::Bool),
        inner("sbom", Shape::Scalar),
        inner(
            "secrets",
            Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT))),
        ),
        inner("shm_size", Shape::Bytes),
        inner("ssh", Shape::Short(convert::ssh, &TEXT_LIST)),
        inner("tags", TEXT_LIST),
        inner("target", Shape::Text),
        inner("ulimits", ULIMITS),
    ],
    required: &[],
};

const BLKIO: Object = Object {
    keys: &[
        allowed("device_read_bps", Shape::List(&Shape::Object(&BLKIO_RATE)), TUNING),
        allowed("device_read_iops", Shape::List(&Shape::Object(&BLKIO_RATE)), TUNING),
        allowed("device_write_bps", Shape::List(&Shape::Object(&BLKIO_RATE)), TUNING),
        allowed("device_write_iops", Shape::List(&Shape::Object(&BLKIO_RATE)), TUNING),
        allowed("weight", INT, TUNING),
        allowed("weight_device", Shape::List(&Shape::Object(&BLKIO_WEIGHT)), TUNING),
    ],
    required: &[],
};

const BLKIO_RATE: Object =
    Object { keys: &[inner("path", Shape::Text), inner("rate", Shape::Bytes)], required: &[] };

const BLKIO_WEIGHT: Object =
    Object { keys: &[inner("path", Shape::Text), inner("weight", INT)], required: &[] };

const FILE_MOUNT: Object = Object {
    keys: &[
        model("source", Shape::Text, "mounts (secret, config): name"),
        model("target", Shape::Text, "mounts (secret, config): target"),
        allowed("uid", Shape::Text, "files belong to the service's user"),
        allowed("gid", Shape::Text, "files belong to the service's user"),
        allowed("mode", Shape::Mode, "secrets are readable by the service's user alone"),
    ],
    required: &[],
};

const CREDENTIAL_SPEC: Object = Object {
    keys: &[
        refused("config", Shape::Text, HOST),
        refused("file", Shape::Text, HOST),
        refused("registry", Shape::Text, HOST),
    ],
    required: &[],
};

const DEPENDENCY: Object = Object {
    keys: &[
        model("condition", Shape::Word(&CONDITIONS), "depends_on"),
        allowed("restart", Shape::Bool, "connections are retried by the proxy, not by a restart"),
        allowed("required", Shape::Bool, "what an app depends on is part of it"),
    ],
    required: &["condition"],
};

const CONDITIONS: [&str; 3] =
    ["service_started", "service_healthy", "service_completed_successfully"];

const DEVELOP: Object = Object {
    keys: &[allowed(
        "watch",
        Shape::List(&Shape::Object(&WATCH)),
        "it is for development on one machine",
    )],
    required: &[],
};

const WATCH: Object = Object {
    keys: &[
        inner("action", Shape::Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        inner("exec", Shape::Object(&HOOK)),
        inner("ignore", Shape::Texts),
        inner("include", Shape::Texts),
        inner("initial_sync", Shape::Bool),
        inner("path", Shape::Text),
        inner("target", Shape::Text),
    ],
    required: &["path", "action"],
};

const DEVICE: Object = Object {
    keys: &[
        inner("source", Shape::Text),
        inner("target", Shape::Text),
        inner("permissions", Shape::Text),
    ],
    required: &["source"],
};

const ENV_FILE: Object = Object {
    keys: &[
        inner("path", Shape::Text),
        inner("format", Shape::Text),
        inner("required", Shape::Bool),
    ],
    required: &["path"],
};

const HEALTHCHECK: Object = Object {
    keys: &[
        model("disable", Shape::Bool, "probes"),
        model("interval", Shape::Duration, "probes.readiness.interval"),
        model("retries", INT, "probes.readiness.failure_threshold"),
        allowed("start_interval", Shape::Duration, "what starts is asked more often by itself"),
        model("start_period", Shape::Duration, "probes.startup"),
        model("test", Shape::Short(convert::health_test, &TEXT_LIST), "probes.readiness.check"),
        model("timeout", Shape::Duration, "probes.readiness.timeout"),
    ],
    required: &[],
};

const LOGGING: Object = Object {
    keys: &[
        allowed("driver", Shape::Text, "logs are kept by the backend"),
        allowed("options", Shape::Map(&Shape::Scalar), "logs are kept by the backend"),
    ],
    required: &[],
};

const MODEL_USE: Object = Object {
    keys: &[
        refused("endpoint_var", Shape::Text, "the app has no language models"),
        refused("model_var", Shape::Text, "the app has no language models"),
    ],
    required: &[],
};

const ATTACHMENT: Object = Object {
    keys: &[
        allowed("aliases", TEXT_LIST, "a service is found by its own name"),
        allowed("driver_opts", Shape::Map(&Shape::Scalar), ENGINE),
        allowed("gw_priority", Shape::Number, ENGINE),
        allowed("interface_name", Shape::Text, ENGINE),
        allowed("ipv4_address", Shape::Text, ADDRESS),
        allowed("ipv6_address", Shape::Text, ADDRESS),
        allowed("link_local_ips", TEXT_LIST, ADDRESS),
        allowed("mac_address", Shape::Text, ADDRESS),
        allowed("priority", Shape::Number, ENGINE),
    ],
    required: &[],
};

const PORT: Object = Object {
    keys: &[
        model("app_protocol", Shape::Text, "ports.protocol"),
        allowed("host_ip", Shape::Text, ADDRESS),
        allowed("mode", Shape::Text, "ports are published at the service's proxy"),
        model("name", Shape::Text, "ports.name"),
        model("protocol", Shape::Text, "ports.protocol"),
        model("published", Shape::Scalar, "ports.publish"),
        model("target", Shape::Int(0, 65535), "ports.port"),
    ],
    required: &["target"],
};

const HOOK: Object = Object {
    keys: &[
        inner("command", Shape::Command),
        inner("environment", Shape::Variables),
        inner("image", Shape::Text),
        inner("per_replica", Shape::Bool),
        inner("privileged", Shape::Bool),
        inner("user", Shape::Text),
        inner("working_dir", Shape::Text),
    ],
    required: &[],
};

const PROVIDER: Object = Object {
    keys: &[
        inner("type", Shape::Text),
        inner(
            "options",
            Shape::Map(&Shape::Short(convert::one_or_several, &Shape::List(&Shape::Scalar))),
        ),
    ],
    required: &["type"],
};

const VOLUME_MOUNT: Object = Object {
    keys: &[
        inner("bind", Shape::Object(&BIND)),
        allowed("consistency", Shape::Text, ENGINE),
        inner("image", Shape::Object(&IMAGE_MOUNT)),
        model("read_only", Shape::Bool, "mounts (volume, bind): read_only"),
        model("source", Shape::Text, "mounts (volume: name; bind: source)"),
        model("target", Shape::Text, "mounts: target"),
        inner("tmpfs", Shape::Object(&TMPFS)),
        model(
            "type",
            Shape::Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
            "mounts (bind, volume, tmpfs; others are refused)",
        ),
        inner("volume", Shape::Object(&VOLUME_OPTIONS)),
    ],
    required: &["type"],
};

const BIND: Object = Object {
    keys: &[
        allowed("create_host_path", Shape::Bool, "the path has to be there"),
        allowed("propagation", Shape::Text, ENGINE),
        allowed("recursive", Shape::Word(&["enabled", "disabled", "writable", "readonly"]), ENGINE),
        allowed("selinux", Shape::Word(&["z", "Z"]), ENGINE),
    ],
    required: &[],
};

const IMAGE_MOUNT: Object =
    Object { keys: &[refused("subpath", Shape::Text, ENGINE)], required: &[] };

const TMPFS: Object = Object {
    keys: &[
        model("size", Shape::Size, "mounts (tmpfs): size"),
        allowed("mode", Shape::Mode, "the service's user can write to it"),
    ],
    required: &[],
};

const VOLUME_OPTIONS: Object = Object {
    keys: &[
        allowed("labels", Shape::Labels, ENGINE),
        allowed("nocopy", Shape::Bool, "a volume is empty at first"),
        refused("subpath", Shape::Text, "a volume is mounted whole"),
    ],
    required: &[],
};
