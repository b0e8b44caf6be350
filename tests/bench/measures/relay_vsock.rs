//! Relays with vsock on a side. A host may have no vsock, but each guest has a loopback of it: client,
//! relays and servers are all in one.

use super::relay::{COPY, DIRECT, PROXYD, SOCAT, SPLICE};
use crate::measure::Measure;
use crate::peer::ROUSE;
use crate::props::{Props, Size};
use rouse_tests::{Appliance, Vm};
use std::os::unix::fs::PermissionsExt;

const RELAYS: [&str; 5] = [SPLICE, COPY, ROUSE, PROXYD, SOCAT];
const PAIRS: [[Family; 2]; 5] = [
    [Family::Vsock, Family::Tcp],
    [Family::Vsock, Family::Unix],
    [Family::Tcp, Family::Vsock],
    [Family::Unix, Family::Vsock],
    [Family::Vsock, Family::Vsock],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Tcp,
    Unix,
    Vsock,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Vsock => "vsock",
        }
    }

    /// The two words that the bench's own programs take; a Unix socket has its number in its path.
    fn words(self, port: usize) -> String {
        match self {
            Self::Unix => format!("unix /run/bench-{port}.sock"),
            family => format!("{} {port}", family.name()),
        }
    }

    /// As `ListenStream=` has it, or as an address to connect to.
    fn address(self, host: &str, port: usize) -> String {
        match self {
            Self::Tcp => format!("127.0.0.1:{port}"),
            Self::Unix => format!("/run/bench-{port}.sock"),
            Self::Vsock => format!("vsock:{host}:{port}"),
        }
    }

    fn socat(self, front: bool, port: usize) -> String {
        match (self, front) {
            (Self::Tcp, true) => {
                format!("TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay")
            }
            (Self::Tcp, false) => format!("TCP4:127.0.0.1:{port},nodelay"),
            (Self::Unix, true) => format!("UNIX-LISTEN:/run/bench-{port}.sock,fork"),
            (Self::Unix, false) => format!("UNIX-CONNECT:/run/bench-{port}.sock"),
            (Self::Vsock, true) => format!("VSOCK-LISTEN:{port},fork"),
            (Self::Vsock, false) => format!("VSOCK-CONNECT:1:{port}"),
        }
    }
}

/// Where the server of a family listens.
const SERVER: usize = 9000;

/// Where a relay of a pair does.
fn front(pair: usize, relay: usize) -> usize {
    9100 + 10 * pair + relay
}

/// The command of a relay, if it can do that.
fn command(relay: &str, [front, back]: [Family; 2], port: usize) -> Option<String> {
    Some(match relay {
        SPLICE => format!("/usr/bin/relay splice {} {}", front.words(port), back.words(SERVER)),
        COPY => format!("/usr/bin/relay copy {} {}", front.words(port), back.words(SERVER)),
        ROUSE => format!(
            "/usr/bin/activator activate -l {} /usr/bin/activator relay {}",
            front.address("", port),
            back.address("1", SERVER)
        ),
        PROXYD if back == Family::Vsock => return None,
        PROXYD => format!(
            "/usr/bin/systemd-socket-activate -l {} /usr/lib/systemd/systemd-socket-proxyd {}",
            front.address("", port),
            back.address("", SERVER)
        ),
        _ => format!(
            "/usr/bin/socat -b 65536 {} {}",
            front.socat(true, port),
            back.socat(false, SERVER)
        ),
    })
}

fn service(pair: usize, relay: usize) -> String {
    format!("relay-{pair}-{relay}.service")
}

/// All pairs with vsock.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let mut measures: Vec<[Measure; 3]> = PAIRS.map(|pair| of_pair(props, pair)).into();
    if props.size == Size::Smoke {
        let [mut first, ..] = measures.swap_remove(0);
        first.leave_out("all", "a guest is not part of so short a run");
        return vec![first];
    }
    let vm = Vm::start(&appliance(props), "bench-relay", &[]);
    for round in 0..props.rounds {
        eprintln!("relay-vsock: round {} of {}", round + 1, props.rounds);
        for (pair, measures) in measures.iter_mut().enumerate() {
            for relay in [None].into_iter().chain((0..RELAYS.len()).map(Some)) {
                let (name, at) = match relay {
                    None => (DIRECT, PAIRS[pair][1].words(SERVER)),
                    Some(relay) if command(RELAYS[relay], PAIRS[pair], 0).is_none() => continue,
                    Some(relay) => (RELAYS[relay], PAIRS[pair][0].words(front(pair, relay))),
                };
                let values = turn(props, &vm, relay.map(|relay| service(pair, relay)), &at);
                for (measure, value) in measures.iter_mut().zip(values) {
                    if let Some(value) = value {
                        measure.add(name, value);
                    }
                }
            }
        }
    }
    measures.into_iter().flatten().collect()
}

fn of_pair(props: &Props, [front, back]: [Family; 2]) -> [Measure; 3] {
    let place = "; all in one guest";
    let mut measures =
        super::relay::measures(front.name(), back.name(), bytes(props), trips(props), place);
    if props.size != Size::Smoke {
        measures[0].leave_out("haproxy", "it knows no vsock");
    }
    measures
}

fn bytes(props: &Props) -> usize {
    props.pick(1, 16, 64) << 20
}

fn trips(props: &Props) -> usize {
    props.pick(1, 300, 1000)
}

/// Bytes per second, CPU per MiB of a service, the median round trip.
fn turn(props: &Props, vm: &Vm, service: Option<String>, at: &str) -> [Option<f64>; 3] {
    let usage = service.as_ref().map_or("true".into(), |service| {
        format!("sed -n 's/usage_usec //p' /sys/fs/cgroup/rouse/{service}/cpu.stat")
    });
    let (bytes, trips) = (bytes(props), trips(props));
    // Whoever starts with its first client has started behind the first line.
    let answer = vm.shell(&format!(
        "until ends trips {at} 3 >/dev/null; do sleep 0.2; done\n\
         {usage}; ends bytes {at} {bytes}; {usage}; ends trips {at} {trips}"
    ));
    let numbers: Vec<f64> = answer.lines().map(|line| line.parse().expect(&answer)).collect();
    match *numbers.as_slice() {
        [rate, trip] if service.is_none() => [Some(rate), None, Some(trip)],
        [before, rate, after, trip] => {
            [Some(rate), Some((after - before) / (bytes >> 20) as f64), Some(trip)]
        }
        _ => panic!("{at}: {answer}"),
    }
}

fn appliance(props: &Props) -> Appliance {
    let mut guest =
        Appliance::guest().replace("appliance.toml", "\"socat\",", "\"socat\", \"systemd\",");
    let text = std::fs::read_to_string(guest.path().join("appliance.toml")).unwrap();
    let mut files = "\n[files]\n".to_owned();
    for name in ["relay", "ends"] {
        let to = guest.path().join(name);
        std::fs::copy(props.folder.join("bin").join(name), &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        files += &format!("\"/usr/bin/{name}\" = \"{name}\"\n");
    }
    guest = guest.with("appliance.toml", &(text + &files));
    let unit = |command: &str| {
        format!("[Service]\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n")
    };
    for family in [Family::Tcp, Family::Unix, Family::Vsock] {
        let name = format!("ends-{}.service", family.name());
        guest = guest.with(&name, &unit(&format!("/usr/bin/ends serve {}", family.words(SERVER))));
    }
    for (number, pair) in PAIRS.into_iter().enumerate() {
        for (index, relay) in RELAYS.into_iter().enumerate() {
            if let Some(command) = command(relay, pair, front(number, index)) {
                guest = guest.with(&service(number, index), &unit(&command));
            }
        }
    }
    guest
}
