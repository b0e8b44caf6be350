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
use activator::manifest::{Address, Command, ListenKind, Service, Socket, Unit, UnitKind};

/// The key of appliance.toml that allows TCP.
pub(crate) const ON_TCP: &str = "podman-api-on-tcp";
/// What the path of the API's socket ends with, of root's and of a user's.
const SOCKET: &str = "/podman/podman.sock";
/// Variable with the endpoint where none is given.
const VARIABLE: &str = "PODMAN_SOCKET=";
/// Options of `podman system service` that take a value, without their dashes.
const VALUED: [&str; 8] =
    ["t", "time", "timeout", "cors", "tls-cert", "tls-key", "tls-client-ca", "pprof-address"];
/// Options of `activator relay` and of systemd-socket-proxyd that take a value.
const RELAY_VALUED: [&str; 7] = [
    "c",
    "connections-max",
    "exit-idle-time",
    "proxy-protocol",
    "connect-timeout",
    "flow-idle-time",
    "allow-cid",
];

/// How a service offers the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer {
    /// `podman system service`, with the endpoint that it was given.
    Server(Option<String>),
    /// It carries connections to the API's socket.
    Relay,
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

/// Whether connections to a service reach the API, and how.
pub(crate) fn offer(service: &Service) -> Option<Offer> {
    let mut found = service.start.iter().find_map(of_command)?;
    if let Offer::Server(endpoint @ None) = &mut found {
        let mut variables = service.execution.environment.iter();
        *endpoint = variables.find_map(|line| line.strip_prefix(VARIABLE)).map(str::to_owned);
    }
    Some(found)
}

/// Whether connections to a socket unit reach the API.
pub(crate) fn is_behind(socket: &Socket, units: &[Unit]) -> bool {
    match units.get(socket.service.index()).map(|unit| &unit.kind) {
        Some(UnitKind::Service(service)) => offer(service).is_some(),
        _ => false,
    }
}

fn of_command(command: &Command) -> Option<Offer> {
    let arguments: Vec<&str> = command.arguments.iter().skip(1).map(String::as_str).collect();
    match command.program.rsplit('/').next()? {
        "podman" => {
            let at = arguments.windows(2).position(|two| two[0] == "system")?;
            match arguments[at + 1] {
                "service" => {
                    let endpoint = operands(&arguments[at + 2..], &VALUED).first().copied();
                    Some(Offer::Server(endpoint.map(str::to_owned)))
                }
                "dial-stdio" => Some(Offer::Relay),
                _ => None,
            }
        }
        "activator" if arguments.first() == Some(&"relay") => relay(&arguments[1..]),
        "systemd-socket-proxyd" => relay(&arguments),
        _ => None,
    }
}

fn relay(arguments: &[&str]) -> Option<Offer> {
    let backend = operands(arguments, &RELAY_VALUED);
    backend.first().filter(|path| path.ends_with(SOCKET)).map(|_| Offer::Relay)
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
pub(crate) fn check(unit: &ServiceUnit, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    let Some(api) = &unit.api else { return };
    if let Offer::Server(endpoint) = &api.offer {
        server(api, endpoint.as_deref(), sockets, findings);
    }
    if api.on_tcp == OnTcp::Allow {
        return;
    }
    let listeners = sockets.iter().flat_map(|unit| unit.socket.listeners.iter().zip(&unit.spans));
    for (listener, span) in listeners {
        let inet = matches!(
            listener.address,
            Address::AnyPort(_) | Address::Inet(..) | Address::Inet6(..)
        );
        if inet && listener.kind == ListenKind::Stream {
            findings.push(on_tcp(span.clone(), "the socket offers Podman's API on TCP"));
        }
    }
}

/// What Podman itself takes.
fn server(api: &Api, endpoint: Option<&str>, sockets: &[&SocketUnit], findings: &mut Vec<Finding>) {
    let refuse = |span: &Span, message: String, label: &str, help: &str| {
        Finding::error(span.clone(), message).label(label).help(help)
    };
    if let Some(endpoint) = endpoint
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
        findings.push(on_tcp(api.span.clone(), "the service offers Podman's API on TCP"));
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
    let listeners = sockets.iter().flat_map(|unit| unit.socket.listeners.iter().zip(&unit.spans));
    for (listener, span) in listeners {
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

fn on_tcp(span: Span, message: &str) -> Finding {
    Finding::error(span, message.to_owned())
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

    #[test]
    fn endpoints_are_told_from_options() {
        let server = |endpoint: Option<&str>| Some(Offer::Server(endpoint.map(str::to_owned)));
        let podman = |rest: &str| found(&format!("/usr/bin/podman {rest}"));
        assert_eq!(podman("--log-level=info system service"), server(None));
        assert_eq!(podman("system service --time 0 --cors *"), server(None));
        assert_eq!(
            podman("system service -t 5 tcp:localhost:8080"),
            server(Some("tcp:localhost:8080"))
        );
        assert_eq!(podman("system service unix:///tmp/a.sock"), server(Some("unix:///tmp/a.sock")));
        assert_eq!(podman("system prune"), None);
        assert_eq!(podman("run system"), None);
    }

    #[test]
    fn relays_to_the_api_are_known() {
        let line = "/usr/bin/activator relay --exit-idle-time 5s /run/podman/podman.sock";
        assert_eq!(found(line), Some(Offer::Relay));
        let line = "/usr/lib/systemd/systemd-socket-proxyd /run/user/1000/podman/podman.sock";
        assert_eq!(found(line), Some(Offer::Relay));
        assert_eq!(found("/usr/bin/activator relay 127.0.0.1:80"), None);
        assert_eq!(found("/usr/bin/podman system dial-stdio"), Some(Offer::Relay));
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
        assert_eq!(offer(&service), Some(Offer::Server(Some("tcp:0.0.0.0:1".into()))));
    }
}
