//! The image tier: the appliance, of the scripts that Packer runs, booted under qemu in the place of the wire tier's
//! firewall.
//!
//! A boot takes most of a minute, so that one serves all claims ([`scenario`]) and every test reads its own.

mod scenario;
mod shared;

/// One test for each claim of the run.
macro_rules! claims {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                if let Err(error) = shared::report().check(stringify!($name)) {
                    panic!("{error:#}");
                }
            }
        )*
    };
}

claims! {
    /// READY at the first start, of the packages' own units.
    image_boots_to_ready
    /// The ruleset is loaded before any interface is up.
    lockdown_is_in_force_before_any_interface_is_up
    /// Somebody inside dials, asks and pings where nobody may go from before power-on to the end of the run.
    nothing_unlisted_leaves_before_during_or_after_boot
    /// User data over IMDSv2, through cloudsync's file provider, to a page served over HTTPS.
    user_data_becomes_policy_and_a_listed_flow_passes
    /// The data plane as it ships: the kernel's own queue statement, with packets in it.
    packets_go_through_the_native_queue
    /// 200 with a policy.
    health_answers_the_inner_network
    /// Users, modes and capabilities of what runs.
    parts_run_as_their_own_users
    /// No program listens for a login.
    nobody_can_log_in_over_the_network
    /// A quarter as many entries as KiB.
    connection_table_is_sized_by_memory
    /// systemd brings it back.
    killed_daemon_comes_back_and_judges
    /// Promise 12, on the image: no publisher, no metadata, no inventory.
    restart_without_a_cloud_enforces_the_last_good_policy
}
