//! What stands between a client and a server that knows nothing of socket activation: bytes, round
//! trips, and what a byte costs.

use crate::client::{Address, Stream};
use crate::measure::{Bound, Measure};
use crate::peer::ROUSE;
use crate::props::Props;
use crate::room::{Needs, OWN, PROGRAMS, Room, SHARED};
use crate::statistics::quantile;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Bytes of one write of the client, and of one read of the server.
const CHUNK: usize = 64 * 1024;
/// The first byte of a connection: the number behind it, of eight bytes, is how much will come; the
/// server says how much came. (An end of file would do, but for systemd-socket-proxyd, which then ends
/// the other direction as well.)
const COUNT: u8 = b'c';
/// The same: the server says it all back.
const ECHO: u8 = b'e';

pub(super) const SPLICE: &str = "C floor, splice";
pub(super) const COPY: &str = "C floor, copy";
pub(super) const DIRECT: &str = "direct, no relay";
pub(super) const PROXYD: &str = "systemd-socket-proxyd";
pub(super) const SOCAT: &str = "socat";

/// All pairs of TCP and Unix; those with vsock are in `relay_vsock`.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let pairs = [("tcp", "tcp"), ("unix", "tcp"), ("tcp", "unix"), ("unix", "unix")];
    let mut measures = vec![];
    for (index, (front, back)) in pairs.into_iter().enumerate() {
        measures.extend(pair(props, index as u16, front, back));
    }
    measures
}

struct Relay {
    name: &'static str,
    room: Option<Room>,
    front: Address,
}

fn pair(props: &Props, index: u16, front: &str, back: &str) -> Vec<Measure> {
    let bytes = props.pick(1 << 20, 128 << 20, 256 << 20);
    let trips = props.pick(10, 1000, 4000);
    let id = format!("relay-{front}-{back}");
    let mut measures: Vec<Measure> = measures(front, back, bytes, trips, "").into();

    let at = |family: &str, number: u16| match family {
        "tcp" => Address::Tcp(8000 + index * 100 + number),
        _ => Address::Unix(format!("{SHARED}/relay-{index}-{number}.sock").into()),
    };
    let server = at(back, 99);
    serve(&server).unwrap();
    let mut relays = vec![Relay { name: DIRECT, room: None, front: server.clone() }];
    let recipes: [(&'static str, &str, Words); 6] = [
        (SPLICE, "", |_, front, back| floor("splice", front, back)),
        (COPY, "", |_, front, back| floor("copy", front, back)),
        (ROUSE, "", rouse),
        (PROXYD, "systemd", proxyd),
        (SOCAT, "socat", socat),
        ("haproxy", "haproxy", haproxy),
    ];
    for (number, (name, tree, words)) in recipes.into_iter().enumerate() {
        let front = at(front, number as u16);
        let made = props.tree(tree).and_then(|tree| {
            let place = format!("{id}-{number}");
            let mut room = Room::new(&props.folder, &place, tree, Needs::default());
            let words = words(&room, &front, &server);
            room.start_on(&front, words)?;
            Ok(room)
        });
        match made {
            Ok(room) => relays.push(Relay { name, room: Some(room), front }),
            Err(why) => measures[0].leave_out(name, &why),
        }
    }
    for round in 0..props.rounds {
        eprintln!("{id}: round {} of {}", round + 1, props.rounds);
        relays.retain(|relay| match turn(relay, bytes, trips) {
            Ok(values) => {
                for (measure, value) in measures.iter_mut().zip(values) {
                    if value.is_finite() {
                        measure.add(relay.name, value);
                    }
                }
                true
            }
            Err(why) => {
                for measure in &mut measures {
                    measure.rows.retain(|row| row.name != relay.name);
                }
                let log = relay.room.as_ref().map_or(String::new(), Room::log);
                measures[0].leave_out(relay.name, &format!("{why} {log}"));
                false
            }
        });
    }
    measures
}

/// Bytes per second, CPU per MiB, round trips. Who cannot connect to the back has no row.
pub(super) fn measures(
    front: &str,
    back: &str,
    bytes: usize,
    trips: usize,
    place: &str,
) -> [Measure; 3] {
    let new = |suffix: &str, what: &str, unit: &str, how: &str| {
        let (id, title) =
            (format!("relay-{front}-{back}-{suffix}"), format!("Relay, {front} to {back}: {what}"));
        Measure::new(&id, &title, unit, how).floor(SPLICE)
    };
    let how =
        format!("{} MiB one way in writes of 64 KiB, counted by the server{place}.", bytes >> 20);
    let mut speed = new("bytes", "bytes per second", "MB/s", &how)
        .goal(ROUSE, SPLICE, Bound::AtLeast(0.97))
        .goal(ROUSE, COPY, Bound::AtLeast(0.97))
        .goal(ROUSE, SOCAT, Bound::AtLeast(1.0));
    let cost =
        new("cpu", "CPU per MiB", "us", "Of the relay's control group, over the same bytes.");
    let how = format!("{trips} round trips of one byte on one connection; the median of a round.");
    let mut trip = new("trip", "round trip of one byte", "us", &how)
        .goal(ROUSE, SPLICE, Bound::AtMost(1.08))
        .goal(ROUSE, SOCAT, Bound::AtMost(1.0));
    if back == "vsock" {
        speed.leave_out(PROXYD, "it connects to TCP and Unix sockets only");
    } else {
        speed = speed.goal(ROUSE, PROXYD, Bound::AtLeast(1.0));
        trip = trip.goal(ROUSE, PROXYD, Bound::AtMost(1.0));
    }
    [speed, cost, trip]
}

fn turn(relay: &Relay, bytes: usize, trips: usize) -> Result<[f64; 3], String> {
    let text = |error: std::io::Error| error.to_string();
    // Whoever starts with its first client has started behind this.
    round_trips(&relay.front, 3).map_err(text)?;
    let cpu = || relay.room.as_ref().map_or(f64::NAN, Room::cpu_us);
    let before = cpu();
    let took = send(&relay.front, bytes).map_err(text)?;
    let cost = (cpu() - before) / (bytes as f64 / f64::from(1 << 20));
    let trips = round_trips(&relay.front, trips).map_err(text)?;
    Ok([bytes as f64 / 1e6 / took.as_secs_f64(), cost, quantile(&trips, 0.5)])
}

fn send(to: &Address, bytes: usize) -> std::io::Result<Duration> {
    let mut stream = to.connect()?;
    let mut chunk = vec![COUNT; CHUNK];
    chunk[1..9].copy_from_slice(&(bytes as u64).to_le_bytes());
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        left -= stream.write(&chunk[..left.min(CHUNK)])?;
    }
    let mut counted = [0; 8];
    stream.read_exact(&mut counted)?;
    match u64::from_le_bytes(counted) {
        count if count == bytes as u64 => Ok(begun.elapsed()),
        count => Err(std::io::Error::other(format!("{count} of {bytes} bytes arrived"))),
    }
}

/// Microseconds of each.
fn round_trips(to: &Address, count: usize) -> std::io::Result<Vec<f64>> {
    let mut stream = to.connect()?;
    let mut byte = [ECHO];
    // The first one connects, and is not counted.
    (0..=count)
        .map(|_| {
            let begun = Instant::now();
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            Ok(begun.elapsed().as_secs_f64() * 1e6)
        })
        .skip(1)
        .collect()
}

/// Serves for as long as this process lives.
fn serve(at: &Address) -> std::io::Result<()> {
    let serve = |stream: Box<dyn Stream>| drop(std::thread::spawn(move || answer(stream)));
    match at {
        Address::Tcp(port) => {
            let listener = std::net::TcpListener::bind(("127.0.0.1", *port))?;
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stream.set_nodelay(true).is_ok() {
                        serve(Box::new(stream));
                    }
                }
            });
        }
        Address::Unix(path) => {
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            std::thread::spawn(move || {
                listener.incoming().flatten().for_each(|stream| serve(Box::new(stream)));
            });
        }
    }
    Ok(())
}

fn answer(mut stream: Box<dyn Stream>) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut count = stream.read(&mut buffer)?;
    if buffer[0] == ECHO {
        while count > 0 {
            stream.write_all(&buffer[..count])?;
            count = stream.read(&mut buffer)?;
        }
        return Ok(());
    }
    while count < 9 {
        count += stream.read(&mut buffer[count..])?;
    }
    let announced = buffer[1..9].try_into().map_or(0, u64::from_le_bytes);
    let mut total = count as u64;
    while count > 0 && total < announced {
        count = stream.read(&mut buffer)?;
        total += count as u64;
    }
    stream.write_all(&total.to_le_bytes())
}

type Words = fn(&Room, &Address, &Address) -> Vec<String>;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn floor(how: &str, front: &Address, back: &Address) -> Vec<String> {
    let [[a, b], [c, d]] = [front.words(), back.words()];
    words(&[&format!("{PROGRAMS}/relay"), how, &a, &b, &c, &d])
}

fn rouse(_: &Room, front: &Address, back: &Address) -> Vec<String> {
    let own = OWN.to_owned();
    let (front, back) = (front.listen_stream(), back.listen_stream());
    words(&[&own, "activate", "-l", &front, &own, "relay", &back])
}

fn proxyd(_: &Room, front: &Address, back: &Address) -> Vec<String> {
    let (front, back) = (front.listen_stream(), back.listen_stream());
    let proxyd = "/usr/lib/systemd/systemd-socket-proxyd";
    words(&["/usr/bin/systemd-socket-activate", "-l", &front, proxyd, &back])
}

fn socat(_: &Room, front: &Address, back: &Address) -> Vec<String> {
    let front = match front {
        Address::Tcp(port) => {
            format!("TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096")
        }
        Address::Unix(path) => format!("UNIX-LISTEN:{},fork,backlog=4096", path.display()),
    };
    let back = match back {
        Address::Tcp(port) => format!("TCP4:127.0.0.1:{port},nodelay"),
        Address::Unix(path) => format!("UNIX-CONNECT:{}", path.display()),
    };
    words(&["/usr/bin/socat", "-b", "65536", &front, &back])
}

fn haproxy(room: &Room, front: &Address, back: &Address) -> Vec<String> {
    let place = |at: &Address| match at {
        Address::Tcp(port) => format!("127.0.0.1:{port}"),
        Address::Unix(path) => format!("unix@{}", path.display()),
    };
    let text = format!(
        "global\n  nbthread 1\n  log /dev/null local0 emerg\ndefaults\n  mode tcp\n  \
         option splice-auto\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
         listen bench\n  bind {}\n  server one {}\n",
        place(front),
        place(back)
    );
    room.write("/etc/haproxy.cfg", &text);
    words(&["/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy.cfg"])
}
