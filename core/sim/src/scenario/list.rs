//! The scenarios: every kind of trouble, several at once, and lines that have none.

mod access;
pub mod cables;
mod elsewhere;
mod mixed;
mod parts;
mod quiet;

use rand_chacha::ChaCha8Rng;

use super::spec::Scenario;

/// A scenario's maker.
pub type Make = fn(&mut ChaCha8Rng) -> Scenario;

/// Every scenario by name.
pub const ALL: [(&str, Make); 54] = [
    ("quiet_cable", quiet::quiet_cable),
    ("quiet_wifi", quiet::quiet_wifi),
    ("quiet_blips", quiet::quiet_blips),
    ("quiet_slight_loss", quiet::quiet_slight_loss),
    ("quiet_daily", quiet::quiet_daily),
    ("quiet_household", quiet::quiet_household),
    ("quiet_pings_only", quiet::quiet_pings_only),
    ("quiet_own_tests", quiet::quiet_own_tests),
    ("quiet_no_ipv6", quiet::quiet_no_ipv6),
    ("loss_up", access::loss_up),
    ("loss_down", access::loss_down),
    ("loss_both", access::loss_both),
    ("loss_short", access::loss_short),
    ("noise_bursts_up", access::noise_bursts_up),
    ("bursts_down", access::bursts_down),
    ("periodic_30s", access::periodic_30s),
    ("periodic_12s", access::periodic_12s),
    ("periodic_spikes_30s", access::periodic_spikes_30s),
    ("periodic_spikes_12s", access::periodic_spikes_12s),
    ("periodic_spikes_quick", access::periodic_spikes_quick),
    ("periodic_outages", access::periodic_outages),
    ("micro_outages", access::micro_outages),
    ("micro_outages_down", access::micro_outages_down),
    ("outages", access::outages),
    ("outages_pings_only", access::outages_pings_only),
    ("bufferbloat_up", access::bufferbloat_up),
    ("bufferbloat_down", access::bufferbloat_down),
    ("bufferbloat_rush", access::bufferbloat_rush),
    ("bufferbloat_flood", access::bufferbloat_flood),
    ("spike_idle_up", access::spike_idle_up),
    ("spike_download_up", access::spike_download_up),
    ("spike_unknown_down", access::spike_unknown_down),
    ("jitter_up", access::jitter_up),
    ("jitter_down", access::jitter_down),
    ("target_dead", elsewhere::target_dead),
    ("targets_dead_in_turn", elsewhere::targets_dead_in_turn),
    (
        "reflectors_lossy_in_turn",
        elsewhere::reflectors_lossy_in_turn,
    ),
    ("reflector_lossy", elsewhere::reflector_lossy),
    ("target_lossy_short", elsewhere::target_lossy_short),
    ("target_slow_short", elsewhere::target_slow_short),
    ("reflector_refuses", elsewhere::reflector_refuses),
    ("provider_path", elsewhere::provider_path),
    ("wifi_bad", elsewhere::wifi_bad),
    ("wifi_jitter", elsewhere::wifi_jitter),
    ("ipv6_bad", elsewhere::ipv6_bad),
    (
        "ipv6_bad_for_slow_series",
        elsewhere::ipv6_bad_for_slow_series,
    ),
    ("ipv6_dead", elsewhere::ipv6_dead),
    ("mtu_hole", elsewhere::mtu_hole),
    ("mtu_hole_of_mixed", elsewhere::mtu_hole_of_mixed),
    ("route_changes", elsewhere::route_changes),
    ("route_changes_of_all", elsewhere::route_changes_of_all),
    ("evening", access::evening),
    ("capacity_down", access::capacity_down),
    ("loss_and_bloat", mixed::loss_and_bloat),
];

/// The ones that mix several troubles.
pub const MIXED: [(&str, Make); 3] = [
    ("outages_and_jitter", mixed::outages_and_jitter),
    ("bad_evening_noise", mixed::bad_evening_noise),
    ("everything", mixed::everything),
];

/// The ones that take longer than a test may, and are run by name only.
pub const MONTHS: [(&str, Make); 1] = [("quiet_month", quiet::quiet_month)];

/// The ones that are run to see what they take, and not judged.
pub const YEARS: [(&str, Make); 1] = [("year", mixed::year)];
