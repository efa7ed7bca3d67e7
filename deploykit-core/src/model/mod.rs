//! The model: applications as plain data.

mod app;
mod build;
mod dockerfile;
mod environment;
mod files;
mod image;
mod mount;
mod name;
mod port;
mod probe;
mod read;
mod schedule;
mod service;
pub(crate) mod text;
mod tree;
mod units;
mod update;
mod validate;
mod workload;

pub use app::{App, Network, RawObjects};
pub use build::{AppBuilder, JobBuilder, ServiceBuilder};
pub use dockerfile::{BuildSecret, ImageBuild};
pub(crate) use environment::REGISTRY;
pub use environment::{Address, Contract, Listen, RESERVED};
pub use files::{FileMode, FileModeError, ImageCopy, ImageFiles, Owner};
pub use image::{ImageRef, ImageRefError, ImageSpec, ResolvedImage};
pub use mount::{
    BindMount, Config, ConfigMount, Mount, Secret, SecretMount, TmpfsMount, Volume, VolumeMount,
    VolumeScope,
};
pub use name::{
    AppName, ConfigName, MAX_NAME, NameError, NetworkName, PortName, RawName, SecretName,
    ServiceName, VolumeName,
};
pub use port::{Port, Protocol, Publish, Route};
pub use probe::{Check, ExecCheck, GrpcCheck, HttpCheck, PortCheck, Probe, Probes};
pub use read::MAX_FILE;
pub use schedule::{Schedule, ScheduleError};
pub use service::{Autoscale, EndpointMode, Job, Replicas, Service};
pub use units::{Bytes, Cpu, Percent, UnitError};
pub use update::{CanaryStep, OnFailure, RestartPolicy, Rolling, Strategy, Update};
pub use workload::{Condition, Placement, Resources, ServiceAccount, Signal, Workload};
