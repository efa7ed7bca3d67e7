//! What every backend does alike.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: what does not hold panics, and the harness reports it"
)]

mod configs;
mod dependencies;
mod deploy;
mod drift;
mod environment;
mod exec;
mod failure;
mod faults;
mod features;
mod fencing;
mod found;
mod healing;
mod history;
mod idempotence;
mod isolation;
mod jobs;
mod lock;
mod logs;
mod ownership;
mod plans;
mod remove;
mod scaling;
mod secrets;
mod stores;
mod strategies;
mod update;
mod volumes;
mod watched;

use std::sync::Arc;

use deploykit_core::{Capabilities, Feature, SelfHeal};
use futures_util::future::BoxFuture;

use crate::test::Test;

type Run = Box<dyn FnOnce(Arc<Test>) -> BoxFuture<'static, ()> + Send>;

/// One behaviour, as a test.
pub(crate) struct Behaviour {
    pub(crate) name: String,
    pub(crate) run: Run,
}

macro_rules! behaviours {
    ($($area:ident::$name:ident),* $(,)?) => {
        vec![$(Behaviour {
            name: concat!(stringify!($area), "::", stringify!($name)).to_owned(),
            run: Box::new(|test| Box::pin(async move { $area::$name(&test).await })),
        }),*]
    };
}

/// The behaviours that a backend of these capabilities has to show.
pub(crate) fn chosen(capabilities: &Capabilities) -> Vec<Behaviour> {
    let mut chosen = behaviours![
        configs::a_change_rolls_who_mounts_it_and_goes_back,
        dependencies::healthy_waits_until_it_is_ready,
        dependencies::started_does_not_wait_until_it_is_ready,
        dependencies::completed_waits_for_the_end_of_a_job,
        dependencies::what_waits_for_a_failure_is_not_started,
        deploy::ready_means_ready,
        deploy::a_service_without_ports_is_ready_when_it_runs,
        deploy::a_missing_image_is_refused_beforehand,
        deploy::an_invalid_app_is_refused_with_every_problem,
        drift::what_was_removed_behind_our_back_is_named_and_made_again,
        environment::the_contract_is_kept,
        environment::hostile_characters_arrive_unchanged,
        environment::peers_are_reached_where_the_environment_says,
        exec::commands_see_the_instance,
        exec::what_cannot_be_run_is_told,
        failure::a_crash_loop_is_named_and_the_whole_app_goes_back,
        failure::a_failing_probe_is_named_and_no_request_is_lost,
        failure::one_that_is_too_slow_is_named,
        failure::one_that_does_not_stay_ready_is_refused,
        failure::a_failed_first_deploy_is_left_and_mended_by_the_next,
        failure::pause_leaves_everything_as_it_is,
        failure::continue_carries_out_the_rest,
        fencing::a_late_deployer_changes_nothing,
        found::what_is_ready_is_found_where_it_runs,
        history::so_many_revisions_are_kept,
        history::a_rollback_brings_the_whole_app_back,
        idempotence::a_second_apply_changes_nothing,
        idempotence::a_change_of_one_touches_that_one,
        idempotence::services_come_and_go_by_themselves,
        jobs::a_job_runs_once_for_each_content,
        jobs::a_job_is_tried_again_as_often_as_it_says,
        jobs::a_failed_job_is_named,
        jobs::a_job_that_takes_too_long_is_ended,
        lock::a_second_deployer_is_refused_with_the_name_of_the_first,
        lock::a_deployer_that_may_wait_waits,
        lock::the_lock_of_a_dead_deployer_is_taken_over,
        logs::lines_are_told_by_service_and_instance,
        logs::lines_are_followed,
        logs::the_stop_signal_is_the_one_that_was_chosen,
        ownership::apps_do_not_touch_each_other,
        plans::a_plan_changes_nothing,
        plans::a_plan_is_applied_by_another_deployer,
        plans::a_stale_plan_is_refused,
        plans::an_edited_plan_is_refused,
        remove::nothing_is_left_but_volumes,
        remove::what_is_not_there_takes_no_step,
        scaling::up_and_down_keeps_who_can_stay,
        secrets::a_secret_is_a_file,
        secrets::a_missing_secret_is_refused_beforehand,
        secrets::a_rotation_rolls_who_mounts_it_and_goes_back,
        secrets::old_versions_are_collected,
        secrets::a_value_shows_nowhere,
        stores::state,
        stores::secrets,
        strategies::rolling_keeps_its_bounds,
        strategies::stop_first_never_has_too_many,
        strategies::recreate_never_runs_two_revisions,
        update::a_rolling_update_loses_no_request,
        update::requests_in_flight_are_answered,
        update::a_restart_loses_no_request,
        update::one_that_ignores_its_signal_is_killed,
        volumes::data_is_kept_over_updates_and_shared,
        watched::changes_are_told,
    ];
    if capabilities.self_heal != SelfHeal::None {
        chosen.extend(behaviours![
            healing::a_crashed_instance_is_started_again,
            healing::one_that_fails_its_liveness_probe_is_started_again,
        ]);
    }
    chosen.extend(match capabilities.terminals {
        true => behaviours![exec::a_terminal_is_one],
        false => behaviours![exec::a_terminal_is_refused],
    });
    if capabilities.has(Feature::RestartPolicies) {
        chosen.extend(behaviours![healing::one_that_shall_not_be_started_again_is_drift]);
    }
    if capabilities.has(Feature::Schedules) {
        chosen.extend(behaviours![jobs::a_scheduled_job_runs_by_itself]);
    }
    if capabilities.has(Feature::BlueGreen) {
        chosen.extend(behaviours![strategies::blue_green_moves_all_requests_at_once]);
    }
    if capabilities.has(Feature::Canary) {
        chosen.extend(behaviours![strategies::canary_moves_by_growing_shares]);
    }
    if capabilities.has(Feature::Isolation) {
        chosen.extend(behaviours![isolation::only_those_that_are_named_get_through]);
    }
    if capabilities.has(Feature::HostPorts) {
        chosen.extend(behaviours![ownership::a_taken_port_is_named_and_left_alone]);
    }
    if capabilities.has(Feature::PerReplicaVolumes) {
        chosen.extend(behaviours![volumes::each_replica_finds_its_own_again]);
    }
    chosen.extend(features::all(capabilities));
    chosen.extend(faults::all());
    chosen
}
