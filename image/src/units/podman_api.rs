//! Services that offer Podman's API, podman-system-service(1), and what they may listen on.
//!
//! Podman takes exactly one inherited stream socket of a family that Go knows. With another number
//! it exits, with a vsock socket too; with an endpoint on its command line it unlinks the socket's
//! file first, and the guest's clients are lost with it. And whoever reaches the API can do
//! everything that its user can: on TCP that may be anybody.

use super::keys::Keys;
use super::service::ServiceUnit;
use super::socket::SocketUnit;
use crate::config::OnTcp;
use crate::finding::{Finding, Span};
use activator::manifest::{
    Address, Command, ListenKind, Listener, Service, Socket, Unit, UnitKind,
};
use std::collections::BTreeSet;

/// The key of appliance.toml that allows TCP.
pub(crate) const ON_TCP: &str = "podman-api-on-tcp";
/// What the path of the API's socket ends with, of root's and of a user's.
const SOCKET: &str = "/podman/podman.sock";
/// Variable with the endpoint where none is given.
const VARIABLE: &str = "PODMAN_SOCKET=";
/// Options of `podman system service`, and of podman(1) itself, which may stand anywhere, that take a
/// value; without their dashes.
const VALUED: [&str; 40] = [
    "t",
    "time",
    "timeout",
    "cors",
    "pprof-address",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "tls-ca",
    "c",
    "connection",
    "cgroup-manager",
    "config",
    "conmon",
    "cpu-profile",
    "db-backend",
    "default-mounts-file",
    "events-backend",
    "hooks-dir",
    "identity",
    "imagestore",
    "log-level",
    "max-workers",
    "memory-profile",
    "module",
    "namespace",
    "network-cmd-path",
    "network-config-dir",
    "out",
    "registries-conf",
    "root",
    "runroot",
    "runtime",
    "runtime-flag",
    "ssh",
    "storage-driver",
    "storage-opt",
    "tmpdir",
    "url",
    "volumepath",
];
/// Options of `activator relay` and of systemd-socket-proxyd that take a value.
const RELAY_VALUED: [&str; 8] = [
    "c",
    "connections-max",
    "exit-idle-time",
    "proxy-protocol",
    "connect-timeout",
    "flow-idle-time",
    "inside",
    "allow-cid",
];
/// Options of `activator activate` and of systemd-socket-activate that take a value.
const ACTIVATE_VALUED: [&str; 6] = ["l", "listen", "E", "setenv", "environment", "fdname"];
/// A vsock socket with this CID is reached from inside the guest alone, vsock(7).
const CID_LOCAL: u32 = 1;

/// How a service offers the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    way: Way,
    /// Where its command listens by itself: `activator activate -l`.
    listens: Vec<Address>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// `podman system service`, with the endpoint that it was given.
    Server(Option<String>),
    /// It carries connections to an address; [`Places`] knows whether that is the API's.
    Relay {
        to: String,
        /// Of vsock clients it takes only some, `--allow-cid=`.
        chooses: bool,
    },
}

/// The offer of a service, and what is needed to complain about it.
#[derive(Debug)]
pub(crate) struct Api {
    offer: Offer,
    /// Where the command stands.
    span: Span,
    on_tcp: OnTcp,
}

/// Looks at what a service starts.
pub(crate) fn read(keys: &Keys<'_>, service: &Service) -> Option<Api> {
    let offer = offer(service)?;
    let lines = keys.list("Service", "ExecStart");
    let span = lines.last().map_or_else(|| keys.unit.span(), |line| line.value.span());
    Some(Api { offer, span, on_tcp: keys.facts.input.config.podman_api_on_tcp })
}

/// The addresses that lead to the API, beside those that end with [`SOCKET`].
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeSet<String>);

impl Places {
    /// Of services with the sockets that start them.
    pub(crate) fn of<'a>(
        services: impl Iterator<Item = (&'a ServiceUnit, Vec<&'a Socket>)>,
    ) -> Self {
        let offers =
            services.filter_map(|(unit, sockets)| Some((&unit.api.as_ref()?.offer, sockets)));
        Self::of_offers(&offers.collect::<Vec<_>>())
    }

    fn of_offers(offers: &[(&Offer, Vec<&Socket>)]) -> Self {
        let mut places = Self::default();
        // A relay may lead to a relay.
        loop {
            let known = places.0.len();
            for (offer, sockets) in offers {
                if places.are_behind(offer) {
                    places.add(offer, sockets);
                }
            }
            if places.0.len() == known {
                return places;
            }
        }
    }

    fn add(&mut self, offer: &Offer, sockets: &[&Socket]) {
        let listeners = sockets.iter().flat_map(|socket| &socket.listeners);
        let addresses = listeners.map(|one| &one.address).chain(&offer.listens);
        self.0.extend(addresses.map(Address::to_string));
        self.0.extend(sockets.iter().flat_map(|socket| socket.symlinks.iter().cloned()));
        if let Way::Server(Some(endpoint)) = &offer.way
            && let Some(path) = endpoint.strip_prefix("unix:")
        {
            self.0.insert(format!("/{}", path.trim_start_matches('/')));
        }
    }

    /// Whether connections to a service reach the API.
    fn are_behind(&self, offer: &Offer) -> bool {
        match &offer.way {
            Way::Server(_) => true,
            Way::Relay { to, .. } => to.ends_with(SOCKET) || self.0.contains(to),
        }
    }
}

/// Whether connections to a socket unit reach the API.
pub(crate) fn is_behind(socket: &Socket, units: &[Unit]) -> bool {
    let offers = units.iter().enumerate().filter_map(|(index, unit)| match &unit.kind {
        UnitKind::Service(service) => Some((index, offer(service)?)),
        _ => None,
    });
    let offers: Vec<(usize, Offer)> = offers.collect();
    let sockets = |service: usize| {
        let sockets = units.iter().filter_map(move |unit| match &unit.kind {
            UnitKind::Socket(socket) if socket.service.index() == service => Some(socket),
            _ => None,
        });
        sockets.collect()
    };
    let all: Vec<_> = offers.iter().map(|(index, offer)| (offer, sockets(*index))).collect();
    let places = Places::of_offers(&all);
    let mut own = offers.iter().filter(|(index, _)| *index == socket.service.index());
    own.any(|(_, offer)| places.are_behind(offer))
}

fn offer(service: &Service) -> Option<Offer> {
    let mut found = service.start.iter().find_map(of_command)?;
    if let Way::Server(endpoint @ None) = &mut found.way {
        let mut variables = service.execution.environment.iter();
        *endpoint = variables.find_map(|line| line.strip_prefix(VARIABLE)).map(str::to_owned);
    }
    Some(found)
}

fn of_command(command: &Command) -> Option<Offer> {
    let arguments: Vec<&str> = command.arguments.iter().skip(1).map(String::as_str).collect();
    of_words(&command.program, &arguments)
}

fn of_words(program: &str, arguments: &[&str]) -> Option<Offer> {
    let way = match (program.rsplit('/').next()?, arguments) {
        ("podman", _) => match operands(arguments, &VALUED)[..] {
            ["system", "service", ref rest @ ..] => {
                Way::Server(rest.first().copied().map(str::to_owned))
            }
            ["system", "dial-stdio", ..] => Way::Relay { to: SOCKET.into(), chooses: false },
            _ => return None,
        },
        ("env", _) => {
            let is_program = |word: &&str| !word.starts_with('-') && !word.contains('=');
            let at = arguments.iter().position(is_program)?;
            return of_words(arguments[at], &arguments[at + 1..]);
        }
        // As far as it can be seen: what a shell makes of it, only that knows.
        ("sh" | "dash" | "bash", ["-c", script, ..]) => {
            let words: Vec<&str> = script.split_ascii_whitespace().collect();
            return (0..words.len()).find_map(|at| of_words(words[at], &words[at + 1..]));
        }
        ("activator", ["relay", rest @ ..]) | ("systemd-socket-proxyd", rest) => relay(rest)?,
        ("activator", ["activate", rest @ ..]) | ("systemd-socket-activate", rest) => {
            return activate(rest);
        }
        _ => return None,
    };
    Some(Offer { way, listens: vec![] })
}

fn relay(arguments: &[&str]) -> Option<Way> {
    let to = (*operands(arguments, &RELAY_VALUED).first()?).to_owned();
    Some(Way::Relay { to, chooses: arguments.iter().any(|word| word.starts_with("--allow-cid")) })
}

/// What `activate` starts, and where that listens.
fn activate(arguments: &[&str]) -> Option<Offer> {
    let mut listens: Vec<&str> = vec![];
    let mut rest = arguments;
    while let Some((word, behind)) = rest.split_first()
        && let Some(option) = word.strip_prefix('-')
    {
        rest = behind;
        if option == "-" {
            break;
        }
        let (name, value) = match option.strip_prefix('-') {
            Some(long) => long.split_once('=').unwrap_or((long, "")),
            // Flags may stand before it in the same word, its value behind it.
            None => match option.find(['l', 'E']) {
                Some(at) => (&option[at..=at], option[at + 1..].trim_start_matches('=')),
                None => (option, ""),
            },
        };
        if !ACTIVATE_VALUED.contains(&name) {
            continue;
        }
        let value = match value {
            "" => {
                let (value, behind) = rest.split_first()?;
                rest = behind;
                value
            }
            value => value,
        };
        if ["l", "listen"].contains(&name) {
            listens.push(value);
        }
    }
    let (program, arguments) = rest.split_first()?;
    let mut offer = of_words(program, arguments)?;
    let addresses = listens.iter().map(|text| text.strip_prefix("stream:").unwrap_or(text));
    offer.listens.extend(addresses.filter_map(|text| text.parse().ok()));
    Some(offer)
}

/// The arguments that are no options, and no values of options.
fn operands<'a>(arguments: &[&'a str], valued: &[&str]) -> Vec<&'a str> {
    let mut operands = Vec::new();
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
            Some("") => operands.extend(rest.by_ref()),
            Some(option) if valued.contains(&option) => {
                rest.next();
            }
            Some(_) => {}
            None => operands.push(argument),
        }
    }
    operands
}

/// Checks a service that offers the API against all socket units that start it.
pub(crate) fn check(
    unit: &ServiceUnit,
    sockets: &[&SocketUnit],
    places: &Places,
    findings: &mut Vec<Finding>,
) {
    let Some(api) = unit.api.as_ref().filter(|api| places.are_behind(&api.offer)) else { return };
    if let Way::Server(endpoint) = &api.offer.way {
        server(api, endpoint.as_deref(), sockets, findings);
    }
    if api.on_tcp == OnTcp::Refuse {
        let streams = listeners(sockets).filter(|(one, _)| one.kind == ListenKind::Stream);
        let streams = streams.map(|(one, span)| ("socket", &one.address, span));
        let own = api.offer.listens.iter().map(|address| ("service", address, &api.span));
        for (what, address, span) in streams.chain(own) {
            if matches!(address, Address::AnyPort(_) | Address::Inet(..) | Address::Inet6(..)) {
                findings.push(on_tcp(span.clone(), what));
            }
        }
    }
    if let Way::Relay { chooses: false, .. } = api.offer.way {
        on_vsock(api, sockets, findings);
    }
}

/// All listeners, and where each was written.
fn listeners<'a>(sockets: &'a [&SocketUnit]) -> impl Iterator<Item = (&'a Listener, &'a Span)> {
    sockets.iter().flat_map(|unit| unit.socket.listeners.iter().zip(&unit.spans))
}

/// A relay that takes every vsock client: sibling VMs, and every user in the guest.
fn on_vsock(api: &Api, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    let open = |address: &Address| matches!(address, Address::Vsock(cid, _) if *cid != CID_LOCAL);
    let refuse = |span: &Span, help: &str| {
        let message = "the relay takes every vsock client to Podman's API";
        Finding::error(span.clone(), message)
            .label("refused: whoever connects can do all that its user can")
            .help(format!("{help}: the host alone"))
    };
    for unit in sockets.iter().filter(|unit| unit.socket.allow_cids.is_empty()) {
        let asked = unit.socket.accept.is_some() || unit.relay.is_some();
        let help = match asked {
            true => "add `X-AllowCID=host`",
            false => "write `activator relay --allow-cid=2` in the service",
        };
        let listeners = unit.socket.listeners.iter().zip(&unit.spans);
        let open = listeners.filter(|(one, _)| open(&one.address));
        findings.extend(open.map(|(_, span)| refuse(span, help)));
    }
    if api.offer.listens.iter().any(open) {
        findings.push(refuse(&api.span, "write `activator relay --allow-cid=2`"));
    }
}

/// What Podman itself takes.
fn server(api: &Api, endpoint: Option<&str>, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    let refuse = |span: &Span, message: String, label: &str, help: &str| {
        Finding::error(span.clone(), message).label(label).help(help)
    };
    // Words of a variable that only the guest knows: options, as in Podman's own unit, or an endpoint.
    let unclear = endpoint.is_some_and(|endpoint| endpoint.contains('$'));
    if unclear && sockets.is_empty() && api.on_tcp == OnTcp::Refuse {
        let message = "what the API service listens on is in a variable".into();
        let help =
            format!("write it out; or write `{ON_TCP} = \"allow\"` in {}", crate::config::FILE);
        findings.push(refuse(&api.span, message, "refused: it may be TCP", &help));
    }
    if let Some(endpoint) = endpoint.filter(|_| !unclear)
        && !sockets.is_empty()
    {
        let message = format!("`podman system service {endpoint}` does not use the unit's socket");
        findings.push(refuse(
            &api.span,
            message,
            "an endpoint: Podman unlinks what is at its path, and listens itself",
            "leave the endpoint out: the socket unit says where to listen",
        ));
    }
    if let Some(endpoint) = endpoint
        && endpoint.starts_with("tcp:")
        && api.on_tcp == OnTcp::Refuse
    {
        findings.push(on_tcp(api.span.clone(), "service"));
    }
    let count: usize = sockets.iter().map(|unit| unit.socket.listeners.len()).sum();
    if count > 1 {
        let message = format!("the API service has {count} sockets, and Podman takes exactly one");
        let spans = sockets.iter().flat_map(|unit| &unit.spans);
        findings.extend(spans.last().map(|span| {
            refuse(
                span,
                message,
                "one too many",
                "give it a service of its own: `activator relay PATH` leads to the first",
            )
        }));
    }
    for (listener, span) in listeners(sockets) {
        match (&listener.address, listener.kind) {
            (Address::Vsock(..), _) => findings.push(refuse(
                span,
                "the API service cannot listen on vsock: Podman does not know that family".into(),
                "refused: Podman would exit at each connection",
                "start `activator relay /run/podman/podman.sock` with this socket instead",
            )),
            (_, ListenKind::Stream) => {}
            _ => findings.push(refuse(
                span,
                "the API service takes a stream socket only".into(),
                "refused: Podman would exit at each start",
                "write `ListenStream=`",
            )),
        }
    }
}

fn on_tcp(span: Span, what: &str) -> Finding {
    Finding::error(span, format!("the {what} offers Podman's API on TCP"))
        .label("refused: whoever connects can do all that its user can")
        .help(format!(
            "use a Unix socket, vsock or ssh; or write `{ON_TCP} = \"allow\"` in {}",
            crate::config::FILE
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<Offer> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let command = Command { program: words[0].clone(), arguments: words, ..Command::default() };
        offer(&Service { start: vec![command], ..Service::default() })
    }

    fn server(endpoint: Option<&str>) -> Option<Offer> {
        Some(Offer { way: Way::Server(endpoint.map(str::to_owned)), listens: vec![] })
    }

    fn relay(to: &str, chooses: bool) -> Option<Offer> {
        Some(Offer { way: Way::Relay { to: to.into(), chooses }, listens: vec![] })
    }

    #[test]
    fn endpoints_are_told_from_options() {
        let podman = |rest: &str| found(&format!("/usr/bin/podman {rest}"));
        assert_eq!(podman("--log-level=info system service"), server(None));
        assert_eq!(podman("system service --time 0 --cors *"), server(None));
        assert_eq!(
            podman("system service -t 5 tcp:localhost:8080"),
            server(Some("tcp:localhost:8080"))
        );
        assert_eq!(podman("system service unix:///tmp/a.sock"), server(Some("unix:///tmp/a.sock")));
        let tcp = || server(Some("tcp:0.0.0.0:80"));
        assert_eq!(podman("system service --log-level debug tcp:0.0.0.0:80"), tcp());
        assert_eq!(podman("system --log-level=info service tcp:0.0.0.0:80"), tcp());
        assert_eq!(podman("--root /x system --module y service -- tcp:0.0.0.0:80"), tcp());
        assert_eq!(podman("system --log-level debug service"), server(None));
        assert_eq!(found("env -i A=b podman system service tcp:0.0.0.0:80"), tcp());
        assert_eq!(found("/usr/bin/env podman system service"), server(None));
        assert_eq!(podman("system prune"), None);
        assert_eq!(podman("run system"), None);
    }

    #[test]
    fn a_shell_that_starts_it_is_seen_through() {
        let script = "mkdir -p /x && exec podman system service -t 5 tcp:0.0.0.0:80";
        let command = Command {
            program: "/bin/sh".into(),
            arguments: ["sh", "-c", script].map(String::from).to_vec(),
            ..Command::default()
        };
        let found = offer(&Service { start: vec![command], ..Service::default() });
        assert_eq!(found, server(Some("tcp:0.0.0.0:80")));
    }

    #[test]
    fn relays_to_the_api_are_known() {
        let all = Places::default();
        let leads = |offer: Option<Offer>| all.are_behind(&offer.unwrap());
        let line = "/usr/bin/activator relay --exit-idle-time 5s /run/podman/podman.sock";
        assert_eq!(found(line), relay("/run/podman/podman.sock", false));
        assert!(leads(found(line)));
        let line = "/usr/bin/activator relay --allow-cid=2 --inside a.service @x";
        assert_eq!(found(line), relay("@x", true));
        assert!(!leads(found(line)));
        let line = "/usr/lib/systemd/systemd-socket-proxyd /run/user/1000/podman/podman.sock";
        assert!(leads(found(line)));
        assert!(leads(found("/usr/bin/podman system dial-stdio")));
    }

    #[test]
    fn what_is_activated_listens_where_that_is_said() {
        let api = "podman system service -t 5";
        for line in [
            "activator activate -l 2375 podman system service -t 5",
            "/usr/bin/activator activate --listen=stream:2375 --fdname x -- podman system service",
            "activator activate -E A=b -al2375 /usr/bin/podman system service",
            "systemd-socket-activate --listen 2375 activator activate --now podman system service",
        ] {
            let offer = Offer { listens: vec![Address::AnyPort(2375)], ..found(api).unwrap() };
            assert_eq!(found(line), Some(offer), "{line}");
        }
        assert_eq!(found("activator activate -l 2375 cat podman system service"), None);
        assert_eq!(found("activator activate -l"), None);
    }

    #[test]
    fn a_relay_to_a_relay_leads_to_the_api() {
        let socket = |path: &str| Socket {
            listeners: vec![Listener {
                address: Address::Path(path.into()),
                kind: ListenKind::Stream,
            }],
            ..Socket::default()
        };
        let (a, b) = (socket("/run/a"), socket("/run/b"));
        let [first, second, third] = ["/run/b", "/run/a", "/run/c"].map(|to| relay(to, false));
        let [first, second, third] = [&first, &second, &third].map(|it| it.as_ref().unwrap());
        let api = server(Some("unix:/run/a")).unwrap();
        let places = Places::of_offers(&[(first, vec![]), (second, vec![&b]), (&api, vec![&a])]);
        assert!(places.are_behind(first) && places.are_behind(second));
        assert!(!places.are_behind(third));
    }

    #[test]
    fn the_variable_is_an_endpoint() {
        let mut service = Service::default();
        service.start.push(Command {
            program: "/usr/bin/podman".into(),
            arguments: ["podman", "system", "service"].map(String::from).to_vec(),
            ..Command::default()
        });
        service.execution.environment.push("PODMAN_SOCKET=tcp:0.0.0.0:1".into());
        assert_eq!(offer(&service), server(Some("tcp:0.0.0.0:1")));
    }
}
