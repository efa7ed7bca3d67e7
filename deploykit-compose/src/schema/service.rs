//! The keys of a service.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md)

use super::deploy::{DEPLOY, DEVICE_REQUEST};
use super::{
    CUT, CUT_NUMBER, INT, Kind, MODE, NATURAL, OPTIONS, Object, Shape, TEXT_LIST, TEXT_SET, WEIGHT,
    allowed, closed, convert, inner, int, loaded, model, object, refused, requiring,
};

const HOST: &str = "it gives the container parts of the host, which the model does not have";
const ENGINE: &str = "it is a matter of the container engine, which the model does not have";
const TUNING: &str = "the model has only limits and reservations of CPU time and memory";
const BUILDER: &str = "it is a matter of the builder, which the model does not have";
const CACHE: &str = "the engine keeps its own cache of builds";
const ADDRESS: &str = "the backend chooses addresses and names";

pub(super) const SERVICE: Object = object(&[
    allowed("annotations", Shape::Labels, "the model has labels only"),
    allowed("attach", Shape::Bool, "logs are read on demand, from any service").meant(),
    inner("blkio_config", Shape::Object(&BLKIO)),
    inner("build", Shape::Short(convert::build, &Shape::Object(&BUILD))),
    refused("cap_add", TEXT_LIST, HOST),
    refused("cap_drop", TEXT_LIST, "the model has no capabilities of processes"),
    refused("cgroup", Shape::Word(&["host", "private"]), HOST),
    refused("cgroup_parent", Shape::Text, HOST),
    model("command", Shape::Command, "args").meant(),
    inner("configs", Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT)))),
    allowed("container_name", Shape::Short(convert::container_name, &Shape::Text), ADDRESS),
    allowed("cpu_count", NATURAL, TUNING),
    allowed("cpu_percent", int(0, 100), TUNING),
    allowed("cpu_period", CUT, TUNING),
    allowed("cpu_quota", CUT, TUNING),
    allowed("cpu_rt_period", CUT, TUNING),
    allowed("cpu_rt_runtime", CUT, TUNING),
    allowed("cpu_shares", CUT, TUNING),
    model("cpus", Shape::Number, "resources.cpu_limit"),
    allowed("cpuset", Shape::Text, TUNING),
    inner("credential_spec", Shape::Object(&CREDENTIAL_SPEC)),
    inner(
        "depends_on",
        Shape::Once(&Shape::Short(convert::depends_on, &Shape::Named(&Shape::Object(&DEPENDENCY)))),
    ),
    inner("deploy", Shape::Optional(&Shape::Object(&DEPLOY))),
    inner("develop", Shape::Optional(&Shape::Object(&DEVELOP))),
    refused("device_cgroup_rules", TEXT_SET, HOST),
    refused("devices", Shape::List(&Shape::Short(convert::device, &Shape::Object(&DEVICE))), HOST),
    allowed("dns", Shape::Texts, "names are resolved by the backend"),
    allowed("dns_opt", TEXT_LIST, "names are resolved by the backend"),
    allowed("dns_search", Shape::Texts, "names are resolved by the backend"),
    allowed("domainname", Shape::Text, ADDRESS),
    model("entrypoint", Shape::Command, "command").meant(),
    loaded(
        "env_file",
        Shape::Short(
            convert::one_or_several,
            &Shape::List(&Shape::Short(convert::env_file, &Shape::Object(&ENV_FILE))),
        ),
    ),
    model("environment", Shape::Variables, "env"),
    model("expose", Shape::List(&Shape::Scalar(&[Kind::Int])), "ports (internal)"),
    loaded("extends", Shape::Any),
    refused("external_links", TEXT_SET, "what it names is outside of the app"),
    allowed(
        "extra_hosts",
        Shape::Once(&Shape::Short(convert::hosts, &TEXT_LIST)),
        "names are resolved by the backend",
    ),
    refused(
        "gpus",
        Shape::Short(convert::gpus, &Shape::List(&Shape::Object(&DEVICE_REQUEST))),
        HOST,
    ),
    refused(
        "group_add",
        Shape::Once(&Shape::List(&Shape::Scalar(&[Kind::Int]))),
        "the model has one user and no groups",
    ),
    inner("healthcheck", Shape::Object(&HEALTHCHECK)),
    allowed("hostname", Shape::Text, ADDRESS),
    model(
        "image",
        Shape::Text,
        "image; beside `build` no name is needed: images built are named by the backend",
    ),
    allowed("init", Shape::Bool, ENGINE).meant(),
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
        Shape::Once(&Shape::Short(
            convert::names,
            &Shape::Named(&Shape::Optional(&Shape::Object(&MODEL_USE))),
        )),
    ),
    refused("network_mode", Shape::Text, HOST),
    inner(
        "networks",
        Shape::Once(&Shape::Short(
            convert::names,
            &Shape::Named(&Shape::Optional(&Shape::Object(&ATTACHMENT))),
        )),
    ),
    allowed("oom_kill_disable", Shape::Bool, TUNING),
    allowed("oom_score_adj", int(-1000, 1000), TUNING),
    refused("pid", Shape::Optional(&Shape::Text), HOST),
    allowed("pids_limit", CUT, TUNING),
    allowed("platform", Shape::Text, "the backend takes the image that fits its nodes"),
    inner("ports", Shape::Short(convert::ports, &Shape::List(&Shape::Object(&PORT)))),
    refused("post_start", Shape::List(&Shape::Object(&HOOK)), "the model has no hooks"),
    refused(
        "pre_start",
        Shape::List(&Shape::Object(&PRE_START)),
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
    model("scale", INT, "replicas").meant(),
    inner("secrets", Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT)))),
    refused("security_opt", TEXT_SET, "the model has no security profiles"),
    allowed("shm_size", Shape::Bytes, TUNING),
    allowed("stdin_open", Shape::Bool, "services have no terminal"),
    model("stop_grace_period", Shape::Duration, "stop_grace"),
    model("stop_signal", Shape::Text, "stop_signal"),
    allowed("storage_opt", Shape::Map(&Shape::Scalar(&[Kind::Int, Kind::Null])), ENGINE),
    refused("sysctls", Shape::Labels, HOST),
    model("tmpfs", Shape::Texts, "mounts (tmpfs)"),
    allowed("tty", Shape::Bool, "services have no terminal"),
    allowed("ulimits", ULIMITS, TUNING),
    refused("use_api_socket", Shape::Flag, HOST),
    model("user", Shape::Text, "user"),
    refused("userns_mode", Shape::Text, HOST),
    refused("uts", Shape::Text, HOST),
    inner("volumes", Shape::List(&Shape::Short(convert::volume, &Shape::Object(&VOLUME_MOUNT)))),
    refused("volumes_from", TEXT_SET, "name the volumes in each service"),
    model("working_dir", Shape::Text, "workdir"),
]);

pub(super) const ULIMITS: Shape = Shape::Map(&Shape::Short(convert::ulimit, &Shape::Any));

const BUILD: Object = object(&[
    refused(
        "additional_contexts",
        Shape::Short(convert::contexts, &Shape::Labels),
        "a build has one context",
    ),
    model("args", Shape::Variables, "image (build): args"),
    allowed("cache_from", TEXT_LIST, CACHE),
    allowed("cache_to", TEXT_LIST, CACHE),
    model("context", Shape::Text, "image (build): context"),
    model("dockerfile", Shape::Text, "image (build): dockerfile"),
    model("dockerfile_inline", Shape::Text, "image (build): dockerfile_inline"),
    refused("entitlements", TEXT_LIST, BUILDER),
    refused("extra_hosts", Shape::Once(&Shape::Short(convert::hosts, &TEXT_LIST)), BUILDER),
    allowed("isolation", Shape::Text, BUILDER),
    model("labels", Shape::Labels, "image (build): labels"),
    refused("network", Shape::Text, BUILDER),
    model("no_cache", Shape::Bool, "image (build): no_cache"),
    allowed("no_cache_filter", Shape::Once(&Shape::Texts), CACHE),
    allowed("platforms", TEXT_LIST, "images are built for the platform of the engine"),
    refused("privileged", Shape::Bool, BUILDER),
    allowed("provenance", Shape::Scalar(&[Kind::Bool]), "images are built to be run here"),
    model("pull", Shape::Bool, "image (build): pull"),
    allowed("sbom", Shape::Scalar(&[Kind::Bool]), "images are built to be run here"),
    inner("secrets", Shape::List(&Shape::Short(convert::file_mount, &Shape::Object(&FILE_MOUNT)))),
    allowed("shm_size", Shape::Bytes, TUNING),
    refused("ssh", Shape::Short(convert::ssh, &TEXT_LIST), BUILDER),
    allowed("tags", TEXT_LIST, "the backend names what it builds"),
    model("target", Shape::Text, "image (build): target"),
    allowed("ulimits", Shape::Map(&Shape::Short(convert::build_ulimit, &Shape::Any)), TUNING),
]);

const BLKIO: Object = closed(
    &[],
    &[
        allowed(
            "device_read_bps",
            Shape::List(&Shape::Short(convert::rate, &Shape::Object(&BLKIO_RATE))),
            TUNING,
        ),
        allowed(
            "device_read_iops",
            Shape::List(&Shape::Short(convert::rate, &Shape::Object(&BLKIO_RATE))),
            TUNING,
        ),
        allowed(
            "device_write_bps",
            Shape::List(&Shape::Short(convert::rate, &Shape::Object(&BLKIO_RATE))),
            TUNING,
        ),
        allowed(
            "device_write_iops",
            Shape::List(&Shape::Short(convert::rate, &Shape::Object(&BLKIO_RATE))),
            TUNING,
        ),
        allowed("weight", WEIGHT, TUNING),
        allowed(
            "weight_device",
            Shape::List(&Shape::Short(convert::weight, &Shape::Object(&BLKIO_WEIGHT))),
            TUNING,
        ),
    ],
);

const BLKIO_RATE: Object =
    closed(&[], &[inner("path", Shape::Text).meant(), inner("rate", Shape::Bytes).meant()]);

const BLKIO_WEIGHT: Object =
    closed(&[], &[inner("path", Shape::Text).meant(), inner("weight", WEIGHT).meant()]);

const FILE_MOUNT: Object = object(&[
    model("source", Shape::Text, "mounts (secret, config): name; of a build: secrets"),
    model("target", Shape::Text, "mounts (secret, config): target; of a build: its name there"),
    allowed("uid", Shape::Text, "files belong to the service's user"),
    allowed("gid", Shape::Text, "files belong to the service's user"),
    allowed("mode", Shape::Mode, "secrets are readable by the service's user alone"),
]);

const CREDENTIAL_SPEC: Object = object(&[
    refused("config", Shape::Text, HOST),
    refused("file", Shape::Text, HOST),
    refused("registry", Shape::Text, HOST),
]);

const DEPENDENCY: Object = requiring(
    &["condition"],
    &[
        model("condition", Shape::Word(&CONDITIONS), "depends_on"),
        allowed("restart", Shape::Bool, "connections are retried by the proxy, not by a restart"),
        allowed("required", Shape::Bool, "what an app depends on is part of it").meant(),
    ],
);

const CONDITIONS: [&str; 3] =
    ["service_started", "service_healthy", "service_completed_successfully"];

const DEVELOP: Object = object(&[allowed(
    "watch",
    Shape::List(&Shape::Object(&WATCH)),
    "it is for development on one machine",
)]);

const WATCH: Object = requiring(
    &["path", "action"],
    &[
        inner("action", Shape::Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        inner("exec", Shape::Object(&HOOK)),
        inner("ignore", Shape::Once(&Shape::Texts)),
        inner("include", Shape::Once(&Shape::Texts)),
        inner("initial_sync", Shape::Flag),
        inner("path", Shape::Text),
        inner("target", Shape::Text),
    ],
);

const DEVICE: Object = requiring(
    &["source"],
    &[
        inner("source", Shape::Text),
        inner("target", Shape::Text),
        inner("permissions", Shape::Text),
    ],
);

const ENV_FILE: Object = closed(
    &["path"],
    &[
        inner("path", Shape::Text),
        inner("format", Shape::Text),
        inner("required", Shape::Bool).meant(),
    ],
);

const HEALTHCHECK: Object = object(&[
    model("disable", Shape::Bool, "probes"),
    model("interval", Shape::Duration, "probes.readiness.interval"),
    model(
        "retries",
        Shape::Int(super::Int { min: 0, max: i64::MAX, text: true, cut: true }),
        "probes.readiness.failure_threshold",
    )
    .meant(),
    allowed("start_interval", Shape::Duration, "what starts is asked more often by itself"),
    model("start_period", Shape::Duration, "probes.startup"),
    model("test", Shape::Short(convert::health_test, &TEXT_LIST), "probes.readiness.check"),
    model("timeout", Shape::Duration, "probes.readiness.timeout"),
]);

const LOGGING: Object = object(&[
    allowed("driver", Shape::Text, "logs are kept by the backend"),
    allowed(
        "options",
        Shape::Map(&Shape::Scalar(&[Kind::Int, Kind::Float, Kind::Null])),
        "logs are kept by the backend",
    ),
]);

const MODEL_USE: Object = object(&[
    refused("endpoint_var", Shape::Text, "the app has no language models"),
    refused("model_var", Shape::Text, "the app has no language models"),
]);

const ATTACHMENT: Object = object(&[
    allowed("aliases", TEXT_LIST, "a service is found by its own name"),
    allowed("driver_opts", OPTIONS, ENGINE),
    allowed("gw_priority", CUT_NUMBER, ENGINE),
    allowed("interface_name", Shape::Text, ENGINE),
    allowed("ipv4_address", Shape::Text, ADDRESS),
    allowed("ipv6_address", Shape::Text, ADDRESS),
    allowed("link_local_ips", TEXT_LIST, ADDRESS),
    allowed("mac_address", Shape::Text, ADDRESS),
    allowed("priority", CUT_NUMBER, ENGINE),
]);

const PORT: Object = requiring(
    &["target"],
    &[
        model("app_protocol", Shape::Text, "ports.protocol"),
        allowed("host_ip", Shape::Text, ADDRESS),
        allowed("mode", Shape::Text, "ports are published at the service's proxy"),
        model("name", Shape::Text, "ports.name"),
        model("protocol", Shape::Text, "ports.protocol"),
        model("published", Shape::Scalar(&[Kind::Int]), "ports.publish"),
        model("target", int(0, 65535), "ports.port"),
    ],
);

const HOOK: Object = requiring(
    &["command"],
    &[
        inner("command", Shape::Command).meant(),
        inner("environment", Shape::Once(&Shape::Variables)),
        inner("privileged", Shape::Bool),
        inner("user", Shape::Text),
        inner("working_dir", Shape::Text),
    ],
);

const PRE_START: Object = object(&[
    inner("command", Shape::Command).meant(),
    inner("environment", Shape::Once(&Shape::Variables)),
    inner("image", Shape::Text),
    inner("per_replica", Shape::Bool),
    inner("privileged", Shape::Bool),
    inner("user", Shape::Text),
    inner("working_dir", Shape::Text),
]);

const PROVIDER: Object = requiring(
    &["type"],
    &[
        inner("type", Shape::Text),
        inner(
            "options",
            Shape::Map(&Shape::Short(
                convert::one_or_several,
                &Shape::List(&Shape::Scalar(&[Kind::Int, Kind::Bool, Kind::Float])),
            )),
        ),
    ],
);

const VOLUME_MOUNT: Object = requiring(
    &["type"],
    &[
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
);

const BIND: Object = object(&[
    allowed("create_host_path", Shape::Bool, "the path has to be there").meant(),
    allowed("propagation", Shape::Text, ENGINE),
    allowed("recursive", Shape::Word(&["enabled", "disabled", "writable", "readonly"]), ENGINE),
    allowed("selinux", Shape::Word(&["z", "Z"]), ENGINE),
]);

const IMAGE_MOUNT: Object = object(&[refused("subpath", Shape::Text, ENGINE)]);

const TMPFS: Object = object(&[
    model("size", Shape::Size, "mounts (tmpfs): size"),
    allowed("mode", MODE, "the service's user can write to it"),
]);

const VOLUME_OPTIONS: Object = object(&[
    allowed("labels", Shape::Once(&Shape::Labels), ENGINE),
    allowed("nocopy", Shape::Bool, "a volume is empty at first"),
    refused("subpath", Shape::Text, "a volume is mounted whole"),
]);
