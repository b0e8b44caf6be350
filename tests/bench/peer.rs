//! Everybody who listens for others, and how each is told to.

use crate::client::Address;
use crate::props::Props;
use crate::room::{Needs, OWN, PROGRAMS, Room, SHARED};
use rouse_tests::Units;
use std::time::Duration;

/// The floor's name in all tables.
pub(crate) const FLOOR: &str = "C floor";
/// Ours.
pub(crate) const ROUSE: &str = "rouse";
/// Ours where the kernel has no control groups.
pub(crate) const ROUSE_BARE: &str = "rouse without cgroups";
/// As PID 1.
pub(crate) const SYSTEMD: &str = "systemd as PID 1";

/// What a socket unit says of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The service gets the listener.
    No,
    /// One service for each connection.
    Yes,
}

/// Started, and listening.
pub(crate) struct Peer {
    /// In tables.
    pub(crate) name: &'static str,
    /// Where it runs.
    pub(crate) room: Room,
    /// Where it listens.
    pub(crate) address: Address,
    /// After which it has come to rest, behind a hello.
    pub(crate) pause: Duration,
}

/// How a peer is started; port or path are its own.
struct Recipe {
    name: &'static str,
    /// Of the tree with its packages; empty without.
    tree: &'static str,
    needs: Needs,
    set: fn(&Room, &Address) -> Vec<String>,
}

/// Starts all peers that can do that; those who cannot, with the reason.
pub(crate) fn start(
    props: &Props,
    accept: Accept,
    unix: bool,
) -> (Vec<Peer>, Vec<(&'static str, String)>) {
    let (mut peers, mut absent) = (vec![], vec![]);
    for (index, recipe) in recipes(accept, unix).into_iter().enumerate() {
        let address = match unix {
            true => Address::Unix(format!("{SHARED}/{index}.sock").into()),
            false => Address::Tcp(7000 + index as u16),
        };
        match prepare(props, &recipe, &address) {
            Ok(room) => {
                let slow = recipe.name.starts_with("systemd");
                let pause = Duration::from_millis(if slow { 25 } else { 2 });
                peers.push(Peer { name: recipe.name, room, address, pause });
            }
            Err(why) => absent.push((recipe.name, why)),
        }
    }
    (peers, absent)
}

fn prepare(props: &Props, recipe: &Recipe, address: &Address) -> Result<Room, String> {
    let tree = props.tree(recipe.tree)?;
    let name = recipe.name.replace(' ', "-");
    let mut room = Room::new(&props.folder, &name, tree, recipe.needs);
    let words = (recipe.set)(&room, address);
    room.start_on(address, words)?;
    Ok(room)
}

fn recipes(accept: Accept, unix: bool) -> Vec<Recipe> {
    let here = Needs::default();
    let bare = Needs { no_groups: true, ..here };
    let pid_1 = Needs { pid_1: true, ..here };
    let recipe = |name, tree, needs, set| Recipe { name, tree, needs, set };
    match (accept, unix) {
        (Accept::No, _) => vec![
            recipe(FLOOR, "", here, |_, at| floor("wait", at, &["wait", "3"])),
            recipe(ROUSE, "", here, |room, at| rouse(room, at, Accept::No)),
            recipe(ROUSE_BARE, "", bare, |room, at| rouse(room, at, Accept::No)),
            recipe("xinetd wait", "xinetd", here, |room, at| xinetd(room, at, "yes", "wait 0")),
            recipe("openbsd-inetd wait", "openbsd-inetd", here, |room, at| {
                inetd(room, at, "wait", "wait 0")
            }),
            recipe(SYSTEMD, "systemd", pid_1, |room, at| systemd(room, at, Accept::No)),
        ],
        (Accept::Yes, true) => vec![
            recipe(FLOOR, "", here, |_, at| floor("accept", at, &["conn"])),
            recipe(ROUSE, "", here, |room, at| rouse(room, at, Accept::Yes)),
            recipe(ROUSE_BARE, "", bare, |room, at| rouse(room, at, Accept::Yes)),
            recipe("s6-ipcserver", "s6", here, |_, at| {
                let at = at.listen_stream();
                words(&["/usr/bin/s6-ipcserver", "-c", "1000", "-C", "1000", &at, SERVICE, "conn"])
            }),
            recipe("systemd-socket-activate", "systemd", here, |_, at| {
                let at = at.listen_stream();
                let own = ["/usr/bin/systemd-socket-activate", "-a", "--inetd", "-l", &at];
                words(&[&own[..], &[SERVICE, "conn"]].concat())
            }),
            recipe("socat", "socat", here, |_, at| {
                let at = format!("UNIX-LISTEN:{},fork,backlog=4096", at.listen_stream());
                let run = format!("EXEC:{SERVICE} conn,nofork");
                words(&["/usr/bin/socat", &at, &run])
            }),
            recipe(SYSTEMD, "systemd", pid_1, |room, at| systemd(room, at, Accept::Yes)),
        ],
        (Accept::Yes, false) => vec![
            recipe(FLOOR, "", here, |_, at| floor("accept", at, &["conn"])),
            recipe(ROUSE, "", here, |room, at| rouse(room, at, Accept::Yes)),
            recipe(ROUSE_BARE, "", bare, |room, at| rouse(room, at, Accept::Yes)),
            recipe("s6-tcpserver", "s6-networking", here, |_, at| {
                let port = &at.words()[1];
                let own = ["/usr/bin/s6-tcpserver", "-c", "1000", "-C", "1000", "127.0.0.1", port];
                words(&[&own[..], &[SERVICE, "conn"]].concat())
            }),
            recipe("tcpserver", "ucspi-tcp", here, |_, at| {
                let port = &at.words()[1];
                let own = ["/usr/bin/tcpserver", "-RHl0", "-c1000", "-b4096", "127.0.0.1", port];
                words(&[&own[..], &[SERVICE, "conn"]].concat())
            }),
            recipe("xinetd", "xinetd", here, |room, at| xinetd(room, at, "no", "conn")),
            recipe("openbsd-inetd", "openbsd-inetd", here, |room, at| {
                inetd(room, at, "nowait", "conn")
            }),
            recipe("systemd-socket-activate", "systemd", here, |_, at| {
                let at = at.listen_stream();
                let own = ["/usr/bin/systemd-socket-activate", "-a", "--inetd", "-l", &at];
                words(&[&own[..], &[SERVICE, "conn"]].concat())
            }),
            recipe("socat", "socat", here, |_, at| {
                let port = &at.words()[1];
                let at = format!("TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=4096");
                let run = format!("EXEC:{SERVICE} conn,nofork");
                words(&["/usr/bin/socat", &at, &run])
            }),
            recipe(SYSTEMD, "systemd", pid_1, |room, at| systemd(room, at, Accept::Yes)),
        ],
    }
}

/// The same for all.
pub(crate) const SERVICE: &str = "/mnt/bin/service";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn floor(mode: &str, at: &Address, service: &[&str]) -> Vec<String> {
    let [kind, place] = at.words();
    let own = [&format!("{PROGRAMS}/activate"), mode, &kind, &place, SERVICE];
    words(&[&own[..], service].concat())
}

fn xinetd(room: &Room, at: &Address, wait: &str, arguments: &str) -> Vec<String> {
    let port = &at.words()[1];
    // Its own limits would end the run: 50 connections a second, 1000 tries in one.
    let text = format!(
        "defaults\n{{\n instances = UNLIMITED\n cps = 1000000 1\n per_source = UNLIMITED\n}}\n\
         service bench\n{{\n type = UNLISTED\n port = {port}\n bind = 127.0.0.1\n \
         socket_type = stream\n protocol = tcp\n wait = {wait}\n user = root\n \
         server = {SERVICE}\n server_args = {arguments}\n flags = REUSE KEEPALIVE\n}}\n"
    );
    room.write("/etc/xinetd.conf", &text);
    words(&["/usr/sbin/xinetd", "-dontfork", "-f", "/etc/xinetd.conf"])
}

fn inetd(room: &Room, at: &Address, wait: &str, arguments: &str) -> Vec<String> {
    let port = &at.words()[1];
    let line = format!("127.0.0.1:{port} stream tcp {wait} root {SERVICE} service {arguments}\n");
    room.write("/etc/inetd.conf", &line);
    // 0 switches the limit of starts off.
    words(&["/usr/sbin/inetd", "-i", "-R", "0", "/etc/inetd.conf"])
}

/// The units of a socket and its service.
pub(crate) fn units(name: &str, at: &str, accept: Accept) -> [(String, String); 2] {
    let (key, service, run, streams) = match accept {
        Accept::No => ("no", format!("{name}.service"), "wait 3", "null"),
        Accept::Yes => ("yes", format!("{name}@.service"), "conn", "socket"),
    };
    // Limits of both would end the run.
    let socket = format!(
        "[Unit]\nDefaultDependencies=no\n\n[Socket]\nListenStream={at}\nAccept={key}\nBacklog=4096\n\
         TriggerLimitIntervalSec=0\nPollLimitIntervalSec=0\nMaxConnections=1000\n\n[Install]\nWantedBy=sockets.target\n"
    );
    let text = format!(
        "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n\n[Service]\n\
         ExecStart={SERVICE} {run}\nStandardInput={streams}\nStandardOutput={streams}\n\
         StandardError=null\n"
    );
    [(format!("{name}.socket"), socket), (service, text)]
}

fn rouse(room: &Room, at: &Address, accept: Accept) -> Vec<String> {
    let units = units("bench", &at.listen_stream(), accept);
    std::fs::write(room.path("/run/manifest"), manifest(&units)).unwrap();
    words(&[OWN, "run", "/run/manifest"])
}

/// What the guest gets for some units.
pub(crate) fn manifest(units: &[(String, String)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in units {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let units = Units {
        folder: folder.path(),
        name: "bench",
        passwd: "root:x:0:0:root:/root:/bin/sh\n",
        group: "root:x:0:\n",
        packaged: &[],
        links: &[],
        enable: &[],
        has_file: &|_| true,
    };
    match units.compile() {
        Ok(manifest) => manifest.encode(),
        Err(errors) => panic!("{:?}", errors.iter().map(|it| &it.message).collect::<Vec<_>>()),
    }
}

fn systemd(room: &Room, at: &Address, accept: Accept) -> Vec<String> {
    install(room, &units("bench", &at.listen_stream(), accept));
    systemd_words()
}

/// Starts systemd with nothing but the bench's target.
pub(crate) fn systemd_words() -> Vec<String> {
    let options = ["--unit=bench.target", "--log-target=null", "--show-status=false"];
    words(&[&["/usr/lib/systemd/systemd", "--system"][..], &options].concat())
}

/// Writes systemd's units, and a target that wants all sockets among them.
pub(crate) fn install(room: &Room, units: &[(String, String)]) {
    // Not in /run, over which it mounts a file system of its own.
    for (name, text) in units {
        room.write(&format!("/etc/systemd/system/{name}"), text);
    }
    let sockets = units.iter().map(|(name, _)| name.as_str());
    let sockets: Vec<&str> = sockets.filter(|name| name.ends_with(".socket")).collect();
    let text = format!("[Unit]\nDefaultDependencies=no\nWants={}\n", sockets.join(" "));
    room.write("/etc/systemd/system/bench.target", &text);
}
