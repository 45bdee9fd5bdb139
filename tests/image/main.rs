//! The image tier: the appliance, of the scripts that Packer runs, booted under qemu in the place of the wire tier's
//! firewall.
//!
//! A boot takes most of a minute: four serve all claims ([`scenario`]), and every test reads its own.

mod reproducible;
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
    /// It needs no network, and comes before all that does.
    daemon_is_ready_before_any_interface_is_up
    /// Somebody inside dials and asks where nobody may go, from before the first power-on to the end of the run.
    nothing_unlisted_leaves_before_during_or_after_boot
    /// User data over IMDSv2 says where the cloud is; a security group's rule decides.
    policy_comes_from_security_groups
    /// A handshake of the machine's own, through its ruleset, its units' limits and its authorities.
    certificates_of_allowed_servers_are_looked_at
    /// The other way out of the machine.
    refusals_arrive_in_cloudwatch_logs
    /// The data plane as it ships: the kernel's own queue statement, with packets in it.
    packets_go_through_the_native_queue
    /// 200 with a policy; the claims below have what it says without one, and without a daemon.
    health_tells_the_truth
    /// Users, modes and capabilities of what runs.
    parts_run_as_their_own_users
    /// No program listens for a login.
    nobody_can_log_in_over_the_network
    /// 1 GiB: a quarter as many entries as KiB; receive steering; the MTU of EC2's network and of its way out.
    machine_is_sized_by_memory_and_processors
    /// Both of ours: manuals, completions, commented settings, CycloneDX, licences.
    packages_bring_manuals_completions_settings_and_notices
    /// chrony, through the ruleset, from the link-local address.
    clock_follows_the_clouds_own_time_service
    /// A client that no interface of the account has.
    overlay_of_user_data_is_laid_over_the_clouds_clients
    /// By systemd's own measure.
    units_are_hardened
    /// Nothing was killed for memory in all that was tried.
    one_gibibyte_is_enough
    /// systemd brings it back; judged flows do not notice.
    killed_daemon_comes_back_and_judges
    /// Stopped, it stays away until somebody starts it.
    without_a_daemon_nothing_new_leaves_and_health_says_so
    /// It is made again before the daemon starts.
    missing_spool_folder_does_not_keep_the_daemon_down
    /// Root's, closed to everybody, with all that is in it: given back to the daemon before it starts.
    spool_of_the_wrong_owner_and_mode_is_mended_at_start
    /// DESIGN, section 7: packets are judged.
    full_disk_stops_no_packet
    /// DESIGN, section 7: a year ahead, and back.
    wrong_clock_stops_no_packet
    /// `dpkg -i` of a newer version of both packages.
    package_upgrade_drops_no_judged_flow
    /// Promise 12, on the image: the plug is pulled, and the machine comes back to a silent cloud.
    reboot_without_the_cloud_enforces_the_last_good_policy
    /// Powered on without a cable.
    no_network_at_boot_is_said_and_locked_down
    /// The network comes, the metadata service says nothing.
    missing_metadata_is_said_and_nothing_leaves
    /// A Compute Engine instance that meets EC2's service.
    wrong_cloud_is_said_and_nothing_leaves
    /// The line is named.
    broken_user_data_is_said_and_nothing_leaves
    /// The daemon would not start on it; what was in force before stays.
    mistake_in_the_daemons_settings_is_said_and_nothing_leaves
    /// A provider that this machine cannot have.
    user_data_for_the_other_cloud_is_said_and_nothing_leaves
    /// Mended, it needs no reboot.
    policy_comes_from_firewall_rules_whatever_the_order_of_the_cards
    /// The units of the package put the address where the kernel answers from it.
    probe_to_forwarded_ip_is_answered_from_that_ip
    /// What waits for it goes on, so that somebody can see to it.
    daemon_that_cannot_start_does_not_hold_up_the_boot_and_nothing_leaves
    /// No metadata service is asked; without the file nothing leaves.
    inventory_is_the_policy_of_a_machine_in_neither_cloud
}
