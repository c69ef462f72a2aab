//! The command line.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

/// Where the store is unless `--store`, or the daemon that is asked, says otherwise.
pub(crate) const DEFAULT_STORE: &str = "/var/lib/bufferbane/bufferbane.redb";
/// Where the daemon's control socket is unless `--socket` says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/bufferbane/control.sock";

/// The store and the daemon that a command works on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The store's file, where it was named; else that of the daemon that runs.
    pub(crate) store: Option<PathBuf>,
    /// The daemon's control socket.
    pub(crate) socket: PathBuf,
    /// Whether that was named, or is where it is by default.
    pub(crate) socket_is_named: bool,
}

/// Which part of the record a command works on, as it was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// `--last`.
    pub(crate) last: Option<String>,
    /// `--from`.
    pub(crate) from: Option<String>,
    /// `--to`.
    pub(crate) to: Option<String>,
    /// `--interface`.
    pub(crate) interface: Option<String>,
    /// `--target`.
    pub(crate) target: Option<String>,
    /// `--utc`.
    pub(crate) utc: bool,
}

/// A command that works on a store, with the options that all of these have.
macro_rules! store_command {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ident $(<$inner:ident>)?,)* }) => {
        #[derive(FromArgs, ArgsInfo, Debug)]
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type $(<$inner>)?,)*
            /// the store's file (default: that of the daemon at the socket, or where none runs
            /// /var/lib/bufferbane/bufferbane.redb)
            #[argh(option, arg_name = "file")]
            store: Option<PathBuf>,
            /// the daemon's control socket (default /run/bufferbane/control.sock)
            #[argh(option, arg_name = "path")]
            socket: Option<PathBuf>,
        }

        impl $name {
            /// The store and the daemon it works on.
            pub(crate) fn place(&self) -> Place {
                Place {
                    store: self.store.clone(),
                    socket: self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()),
                    socket_is_named: self.socket.is_some(),
                }
            }
        }
    };
}

/// A command that works on a part of the record.
macro_rules! range_command {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ident $(<$inner:ident>)?,)* }) => {
        store_command! {
            $(#[$meta])*
            $name {
                $($(#[$field_meta])* $field: $type $(<$inner>)?,)*
                /// how long back from now: 500ms 10s 5m 24h 7d
                #[argh(option, arg_name = "duration")]
                last: Option<String>,
                /// begin: 2026-05-01, "2026-05-01 18:00", RFC 3339, -2h, yesterday
                #[argh(option, arg_name = "time")]
                from: Option<String>,
                /// end, exclusive; as --from (default: now)
                #[argh(option, arg_name = "time")]
                to: Option<String>,
                /// only this interface
                #[argh(option, arg_name = "name")]
                interface: Option<String>,
                /// only this target or reflector
                #[argh(option, arg_name = "name")]
                target: Option<String>,
                /// read and show times in UTC instead of the local zone
                #[argh(switch)]
                utc: bool,
            }
        }

        impl $name {
            /// The part of the record it works on.
            pub(crate) fn selection(&self) -> Selection {
                Selection {
                    last: self.last.clone(),
                    from: self.from.clone(),
                    to: self.to.clone(),
                    interface: self.interface.clone(),
                    target: self.target.clone(),
                    utc: self.utc,
                }
            }
        }
    };
}

/// Reports, charts, exports, keys and checks for Bufferbane.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} report --last 24h\n{command_name} chart latency --out latency.png",
    note = "{command_name} COMMAND --help says more about each command.\n\
            Times: 2026-05-01, \"2026-05-01 18:00\", RFC 3339, -2h, today, yesterday.\n\
            Durations: 500ms 10s 5m 24h 7d."
)]
#[argh(error_code(0, "done"))]
#[argh(error_code(1, "failed"))]
#[argh(error_code(2, "wrong usage"))]
#[argh(error_code(3, "no data in that range"))]
pub(crate) struct Arguments {
    /// print the version
    #[argh(switch)]
    pub(crate) version: bool,
    #[argh(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What can be asked for.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub(crate) enum Command {
    /// `report`.
    Report(Report),
    /// `chart`.
    Chart(Chart),
    /// `export`.
    Export(Export),
    /// `events`.
    Events(Events),
    /// `live`.
    Live(Live),
    /// `status`.
    Status(Status),
    /// `targets`.
    Targets(Targets),
    /// `keygen`.
    Keygen(Keygen),
    /// `doctor`.
    Doctor(Doctor),
    /// `test`.
    Test(Test),
    /// `path`.
    Path(Path),
    /// `store`.
    Store(Store),
    /// `demo`.
    #[cfg(feature = "demo")]
    Demo(Demo),
}

/// A reflector, a daemon and a report on this host, without configuration or root.
#[cfg(feature = "demo")]
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "demo",
    example = "{command_name} --seconds 20 --out bufferbane-demo"
)]
pub(crate) struct Demo {
    /// how long to probe, seconds (default 20)
    #[argh(option, arg_name = "n", default = "20")]
    pub(crate) seconds: u64,
    /// where the report is written (default bufferbane-demo)
    #[argh(option, arg_name = "dir", default = "\"bufferbane-demo\".into()")]
    pub(crate) out: PathBuf,
}

range_command! {
    /// What the line did: summary, charts, events.
    #[argh(
        subcommand,
        name = "report",
        example = "{command_name} --last 24h\n\
                   {command_name} --from yesterday --to today --format html --out report.html\n\
                   {command_name} --compare 2026-05-01..2026-05-08 2026-05-08..2026-05-15\n\
                   {command_name} --store router.redb --also laptop.redb --format html --out both.html",
        note = "Without --last, --from or --to: the last 24 hours."
    )]
    Report {
        /// text, html, md or json (default: by the name of --out, else text)
        #[argh(option)]
        format: Option<String>,
        /// write to this file; html into a directory also puts each chart beside it
        #[argh(option, arg_name = "path")]
        out: Option<PathBuf>,
        /// the same as --format json
        #[argh(switch)]
        json: bool,
        /// leave out the names of host, interfaces and targets, and all addresses
        #[argh(switch)]
        anonymize: bool,
        /// before and after a change: --compare FROM..TO FROM..TO
        #[argh(option, arg_name = "range")]
        compare: Vec<String>,
        /// a further store, side by side with the first; can be given more than once
        #[argh(option, arg_name = "file")]
        also: Vec<PathBuf>,
        /// the second range of --compare
        #[argh(positional)]
        against: Vec<String>,
    }
}

range_command! {
    /// Draw a chart: latency, jitter, loss, distribution, comparison, heatmap, queue, timeline,
    /// throughput, load, bufferbloat or test.
    #[argh(
        subcommand,
        name = "chart",
        example = "{command_name} latency --last 6h --out latency.png\n\
                   {command_name} loss --interface eth0 --format svg --theme dark > loss.svg",
        note = "Without --last, --from or --to: the last 24 hours."
    )]
    Chart {
        /// latency, jitter, loss, distribution, comparison, heatmap, queue, timeline, throughput,
        /// load, bufferbloat or test
        #[argh(positional)]
        kind: String,
        /// png or svg (default: by the name of --out, else png)
        #[argh(option)]
        format: Option<String>,
        /// write to this file (default: KIND.png; standard output where that is no terminal)
        #[argh(option, arg_name = "path")]
        out: Option<PathBuf>,
        /// pixels across (default 1600)
        #[argh(option)]
        width: Option<u32>,
        /// pixels down (default: as many as the series need)
        #[argh(option)]
        height: Option<u32>,
        /// light or dark (default light)
        #[argh(option)]
        theme: Option<String>,
        /// only this throughput test, by its number in `export --what tests` (test: default the newest)
        #[argh(option, arg_name = "number")]
        test: Option<u64>,
    }
}

range_command! {
    /// Write raw data as CSV, JSON lines or Parquet.
    #[argh(
        subcommand,
        name = "export",
        example = "{command_name} --format csv --last 1h > samples.csv\n\
                   {command_name} --what rollups --format json --from -7d --out rollups.jsonl",
        note = "Without --last or --from everything that was recorded is written."
    )]
    Export {
        /// csv, json (a line for each row) or parquet (default csv)
        #[argh(option)]
        format: Option<String>,
        /// samples, rollups (of a minute), events or tests (default samples)
        #[argh(option)]
        what: Option<String>,
        /// write to this file instead of standard output
        #[argh(option, arg_name = "path")]
        out: Option<PathBuf>,
        /// the same as --format json
        #[argh(switch)]
        json: bool,
    }
}

range_command! {
    /// List events.
    #[argh(
        subcommand,
        name = "events",
        example = "{command_name} --last 7d\n{command_name} --interface eth0 --json",
        note = "Without --last or --from all that was recorded are listed."
    )]
    Events {
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

store_command! {
    /// What goes on now, in the terminal: q quits.
    #[argh(
        subcommand,
        name = "live",
        example = "{command_name}\n{command_name} --interval 200ms"
    )]
    Live {
        /// how often the daemon is asked (default 1s)
        #[argh(option, arg_name = "duration")]
        interval: Option<String>,
        /// show times in UTC instead of the local zone
        #[argh(switch)]
        utc: bool,
    }
}

store_command! {
    /// What the running daemon does right now.
    #[argh(
        subcommand,
        name = "status",
        example = "{command_name}\n{command_name} --json",
        note = "With --store: what that file holds, where no daemon that writes to it answers."
    )]
    Status {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// show times in UTC instead of the local zone
        #[argh(switch)]
        utc: bool,
    }
}

store_command! {
    /// What is probed, and since when there is data of it.
    #[argh(
        subcommand,
        name = "targets",
        example = "{command_name}\n{command_name} --json"
    )]
    Targets {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// show times in UTC instead of the local zone
        #[argh(switch)]
        utc: bool,
    }
}

store_command! {
    /// Load the line now: throughput, what becomes of latency, and a grade.
    #[argh(
        subcommand,
        name = "test",
        example = "{command_name}\n{command_name} --direction rrul --seconds 20 --interface eth0\n\
                   {command_name} --udp-up 5Mbit --udp-down 50Mbit",
        note = "The daemon runs it through one of its interfaces to one of its reflectors; the line is \
                full meanwhile, but over UDP. Ctrl-C ends it at once."
    )]
    Test {
        /// which reflector (default: the first)
        #[argh(option, arg_name = "name")]
        reflector: Option<String>,
        /// through which interface (default: the first)
        #[argh(option, arg_name = "name")]
        interface: Option<String>,
        /// up, down, both, or rrul: four marked streams each way (default up)
        #[argh(option)]
        direction: Option<String>,
        /// how long the line is loaded, 2 to 60 (default: as configured, 8)
        #[argh(option, arg_name = "n")]
        seconds: Option<u64>,
        /// send UDP datagrams upward at this rate, 100kbit to 1Gbit, and count what arrives, instead of
        /// filling the line with TCP; alone, or with --udp-down, which may be another rate
        #[argh(option, arg_name = "rate")]
        udp_up: Option<String>,
        /// the same downward
        #[argh(option, arg_name = "rate")]
        udp_down: Option<String>,
        /// the same rate in each direction that --direction says
        #[argh(option, arg_name = "rate")]
        udp_rate: Option<String>,
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

/// The hops to a target, each with its loss and round-trip times.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "path",
    example = "{command_name} 9.9.9.9\n{command_name} vienna\n{command_name} example.net --interface eth1 --count 60 --json",
    note = "What the running daemon probes is walked as it probes it: to that address, through that \
            interface, from the source and with the mark that are configured for it, and so is all else through an \
            interface of its (--interface). Without it the kernel's routes say where to. All messages are of one flow, so that load balancers send them one way. Echo requests are \
            sent where this user may (the sysctl net.ipv4.ping_group_range, or CAP_NET_RAW), else UDP, \
            to which many targets say nothing."
)]
pub(crate) struct Path {
    /// name or address of what the daemon probes, or any address or host name
    #[argh(positional)]
    pub(crate) target: String,
    /// through this interface (default: the one that the daemon probes it through, else that the route has)
    #[argh(option, arg_name = "name")]
    pub(crate) interface: Option<String>,
    /// messages to each hop, 1 to 10000 (default 10)
    #[argh(option, arg_name = "n", default = "10")]
    pub(crate) count: u16,
    /// time from one message to a hop to the next, 100ms to 1m (default 1s)
    #[argh(option, arg_name = "duration")]
    pub(crate) interval: Option<String>,
    /// how many hops to look for, 1 to 30 (default 30)
    #[argh(option, arg_name = "n", default = "30")]
    pub(crate) max_hops: u8,
    /// over IPv4 or IPv6: 4 or 6 (default: the first that has a route)
    #[argh(option, arg_name = "4|6")]
    pub(crate) family: Option<u8>,
    /// send UDP datagrams instead of echo requests
    #[argh(switch)]
    pub(crate) udp: bool,
    /// look for the largest packet that passes, too; mostly less than a minute where larger ones vanish
    #[argh(switch)]
    pub(crate) mtu: bool,
    /// the daemon's control socket (default /run/bufferbane/control.sock)
    #[argh(option, arg_name = "path", default = "DEFAULT_SOCKET.into()")]
    pub(crate) socket: PathBuf,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Make a key file, and the two configuration blocks that use it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "keygen",
    example = "{command_name} vienna --dir /etc/bufferbane/keys --address reflector.example.net"
)]
pub(crate) struct Keygen {
    /// what to call the reflector; the file is called NAME.key
    #[argh(positional)]
    pub(crate) name: String,
    /// where to put the file (default: the current directory)
    #[argh(option, default = "\".\".into()")]
    pub(crate) dir: PathBuf,
    /// the reflector's host name or address, with a port if it is not 9876
    #[argh(option, default = "\"reflector.example.net:9876\".into()")]
    pub(crate) address: String,
}

store_command! {
    /// Look at everything this host needs for measuring, and say what to mend.
    #[argh(
        subcommand,
        name = "doctor",
        example = "{command_name}\n{command_name} --json"
    )]
    Doctor {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// show times in UTC instead of the local zone
        #[argh(switch)]
        utc: bool,
    }
}

/// Check, copy, shrink or prune the store.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "store",
    example = "{command_name} check\n{command_name} copy /mnt/usb/june.redb\n\
               {command_name} prune --samples 7d"
)]
pub(crate) struct Store {
    #[argh(subcommand)]
    pub(crate) action: StoreAction,
}

/// What to do with the store.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub(crate) enum StoreAction {
    /// `store check`.
    Check(StoreCheck),
    /// `store copy`.
    Copy(StoreCopy),
    /// `store compact`.
    Compact(StoreCompact),
    /// `store prune`.
    Prune(StorePrune),
}

store_command! {
    /// Read everything in the store, and say whether it is whole.
    #[argh(subcommand, name = "check", example = "{command_name} --store copy.redb")]
    StoreCheck {
        /// print JSON
        #[argh(switch)]
        json: bool,
        /// show times in UTC instead of the local zone
        #[argh(switch)]
        utc: bool,
    }
}

store_command! {
    /// Write a consistent copy to a new file, while the daemon goes on.
    #[argh(subcommand, name = "copy", example = "{command_name} /mnt/usb/june.redb")]
    StoreCopy {
        /// the file to make
        #[argh(positional)]
        out: PathBuf,
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

store_command! {
    /// Make the file as small as its data allows; nobody else may have it open.
    #[argh(subcommand, name = "compact", example = "{command_name}")]
    StoreCompact {
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}

store_command! {
    /// Remove old data; the daemon must not be running.
    #[argh(
        subcommand,
        name = "prune",
        example = "{command_name} --samples 7d --rollups-1m 90d\n{command_name} --samples 7d --yes"
    )]
    StorePrune {
        /// keep single samples this long
        #[argh(option, arg_name = "duration")]
        samples: Option<String>,
        /// keep rollups of a minute this long
        #[argh(option, arg_name = "duration", long = "rollups-1m")]
        rollups_1m: Option<String>,
        /// keep rollups of an hour this long
        #[argh(option, arg_name = "duration", long = "rollups-1h")]
        rollups_1h: Option<String>,
        /// keep events this long after their end
        #[argh(option, arg_name = "duration")]
        events: Option<String>,
        /// do not ask
        #[argh(switch)]
        yes: bool,
        /// print JSON
        #[argh(switch)]
        json: bool,
    }
}
