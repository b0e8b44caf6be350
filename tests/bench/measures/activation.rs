//! From connect(2) to the first byte of a service that was asleep, what that costs, and how many
//! of them there are in a second.

use crate::client::{hellos, rate};
use crate::measure::{Bound, Measure};
use crate::peer::{self, Accept, FLOOR, Peer, ROUSE, SYSTEMD};
use crate::props::Props;
use crate::statistics::quantile;
use std::time::Duration;

/// `Accept=no`: the service takes one client and exits, the activator listens again.
pub(crate) fn accept_no(props: &Props) -> Vec<Measure> {
    let latency = |measure: Measure| {
        measure.goal(ROUSE, FLOOR, Bound::AtMost(1.08)).goal(SYSTEMD, ROUSE, Bound::AtLeast(30.0))
    };
    run(props, Accept::No, false, "accept-no", "Accept=no, TCP, re-arming", latency, None)
}

/// `Accept=yes` over TCP.
pub(crate) fn accept_tcp(props: &Props) -> Vec<Measure> {
    let latency = |measure: Measure| measure.goal(ROUSE, FLOOR, Bound::AtMost(1.13));
    run(props, Accept::Yes, false, "accept-tcp", "Accept=yes, TCP", latency, Some(0.86))
}

/// `Accept=yes` over a Unix socket.
pub(crate) fn accept_unix(props: &Props) -> Vec<Measure> {
    let latency = |measure: Measure| {
        measure.goal(ROUSE, FLOOR, Bound::AtMost(1.09)).goal(
            ROUSE,
            "s6-ipcserver",
            Bound::AtMost(1.0),
        )
    };
    run(props, Accept::Yes, true, "accept-unix", "Accept=yes, Unix", latency, Some(0.92))
}

fn run(
    props: &Props,
    accept: Accept,
    unix: bool,
    id: &str,
    title: &str,
    latency: impl Fn(Measure) -> Measure,
    least_rate: Option<f64>,
) -> Vec<Measure> {
    let count = props.pick(3, 20, 150);
    let time = Duration::from_millis(props.pick(20, 200, 1000));
    let measure = |suffix: &str, what: &str, unit: &str, how: &str| {
        let (id, title) = (format!("{id}-{suffix}"), format!("{title}: {what}"));
        Measure::new(&id, &title, unit, how).floor(FLOOR)
    };
    let turns = format!(
        "{count} connections in each of {} rounds, one at a time, each when the activator is at \
         rest; from connect(2) to the first echoed byte.",
        props.rounds
    );
    let half = latency(measure("p50", "connect to first byte, median", "us", &turns));
    let tail = measure("p99", "connect to first byte, p99", "us", &turns).goal(
        ROUSE,
        FLOOR,
        Bound::AtMost(1.2),
    );
    let cost = "CPU time of the activator and all it starts, the service included, by the kernel's \
                account of its control group, over the same connections.";
    let cpu =
        measure("cpu", "CPU per activation", "us", cost).goal(ROUSE, FLOOR, Bound::AtMost(1.1));
    let mut measures = vec![half, tail, cpu];
    if let Some(least) = least_rate {
        for (suffix, what) in [("1", "1 client"), ("8", "8 clients")] {
            let how = format!("Closed loop for {} ms a round.", time.as_millis());
            let what = format!("connections per second, {what}");
            let rate = measure(&format!("rate-{suffix}"), &what, "1/s", &how);
            measures.push(rate.goal(ROUSE, FLOOR, Bound::AtLeast(least)));
        }
    }
    let (mut peers, absent) = peer::start(props, accept, unix);
    for (name, why) in absent {
        measures[0].leave_out(name, &why);
    }
    for round in 0..props.rounds {
        eprintln!("{id}: round {} of {}", round + 1, props.rounds);
        // Whoever fails is out: a row has a value of each round, or none.
        peers.retain(|peer| match turn(peer, count, time, measures.len() > 3) {
            Ok(values) => {
                for (measure, value) in measures.iter_mut().zip(values) {
                    measure.add(peer.name, value);
                }
                true
            }
            Err(why) => {
                for measure in &mut measures {
                    measure.rows.retain(|row| row.name != peer.name);
                }
                measures[0].leave_out(peer.name, &format!("{why}: {}", peer.room.log()));
                false
            }
        });
    }
    measures
}

fn turn(peer: &Peer, count: usize, time: Duration, rates: bool) -> Result<Vec<f64>, String> {
    // The first one after others had their turn finds cold caches.
    hellos(&peer.address, 2, peer.pause)?;
    std::thread::sleep(peer.pause * 2);
    let before = peer.room.cpu_us();
    let samples = hellos(&peer.address, count, peer.pause)?;
    std::thread::sleep(peer.pause * 2);
    let cpu = (peer.room.cpu_us() - before) / count as f64;
    let mut values = vec![quantile(&samples, 0.5), quantile(&samples, 0.99), cpu];
    if rates {
        for clients in [1, 8] {
            values.push(rate(&peer.address, clients, time)?);
            std::thread::sleep(peer.pause * 4);
        }
    }
    Ok(values)
}
