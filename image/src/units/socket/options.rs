//! Options of the sockets: what becomes a setsockopt(2).

use super::SECTION;
use crate::units::keys::Keys;
use crate::units::value::{self, Expected, size, time};
use activator::manifest::SocketOption;

/// `BindIPv6Only=`
pub(super) fn ipv6_only(text: &str) -> Result<Option<bool>, Expected> {
    match text {
        "default" => Ok(None),
        "both" => Ok(Some(false)),
        "ipv6-only" => Ok(Some(true)),
        other => value::boolean(other)
            .map(Some)
            .map_err(|_| Expected::OneOf(&["default", "both", "ipv6-only"])),
    }
}

/// In the order to set them: what changes the bind comes first.
pub(super) fn read(keys: &mut Keys<'_>) -> Vec<SocketOption> {
    use SocketOption as Is;
    let mut options = vec![];
    let positive = |seconds: Option<u32>| seconds.filter(|seconds| *seconds > 0);
    let flags_before: [(&str, SocketOption); 3] = [
        ("FreeBind", Is::FreeBind),
        ("Transparent", Is::Transparent),
        ("ReusePort", Is::ReusePort),
    ];
    let flags_after: [(&str, SocketOption); 6] = [
        ("NoDelay", Is::NoDelay),
        ("Broadcast", Is::Broadcast),
        ("PassCredentials", Is::PassCredentials),
        ("PassPIDFD", Is::PassPidFd),
        ("PassSecurity", Is::PassSecurity),
        ("PassPacketInfo", Is::PassPacketInfo),
    ];
    for (key, option) in flags_before {
        if keys.boolean(SECTION, key) == Some(true) {
            options.push(option);
        }
    }
    if let Some(text) = keys.text(SECTION, "BindToDevice").filter(|text| text.text != "*") {
        // IFNAMSIZ is 16 with the NUL.
        let plain = text.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if plain && text.text.len() < 16 {
            options.push(Is::BindToDevice(text.text));
        } else {
            keys.bad(text.assignment, &Expected::Other("the name of a network interface"));
        }
    }
    if keys.boolean(SECTION, "KeepAlive") == Some(true) {
        options.push(Is::KeepAlive);
    }
    let seconds = |keys: &mut Keys<'_>, key: &str| positive(keys.last(SECTION, key, time::seconds));
    options.extend(seconds(keys, "KeepAliveTimeSec").map(Is::KeepAliveTimeSec));
    options.extend(seconds(keys, "KeepAliveIntervalSec").map(Is::KeepAliveIntervalSec));
    let probes = positive(keys.last(SECTION, "KeepAliveProbes", value::unsigned));
    options.extend(probes.map(Is::KeepAliveProbes));
    options.extend(seconds(keys, "DeferAcceptSec").map(Is::DeferAcceptSec));
    for (key, option) in flags_after {
        if keys.boolean(SECTION, key) == Some(true) {
            options.push(option);
        }
    }
    if keys.setting(SECTION, "AcceptFileDescriptors", value::boolean) == Some(false) {
        options.push(Is::RefuseFileDescriptors);
    }
    options.extend(keys.last(SECTION, "Timestamping", timestamping).flatten());
    let int = |text: &str| value::number(text, -1, i64::from(i32::MAX)).map(|n| n as i32);
    let set = |number: Option<i32>| number.filter(|number| *number >= 0);
    options.extend(set(keys.last(SECTION, "Priority", int)).map(Is::Priority));
    let buffer = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    options.extend(buffer(keys.last(SECTION, "ReceiveBuffer", size::bytes)).map(Is::ReceiveBuffer));
    options.extend(buffer(keys.last(SECTION, "SendBuffer", size::bytes)).map(Is::SendBuffer));
    options.extend(set(keys.last(SECTION, "Mark", int)).map(|mark| Is::Mark(mark as u32)));
    options.extend(set(keys.last(SECTION, "IPTOS", type_of_service)).map(Is::IpTos));
    let ttl = |text: &str| value::number(text, -1, 255).map(|n| n as i32);
    options.extend(set(keys.last(SECTION, "IPTTL", ttl)).map(Is::IpTtl));
    options.extend(keys.text(SECTION, "TCPCongestion").map(|text| Is::TcpCongestion(text.text)));
    options
}

fn timestamping(text: &str) -> Result<Option<SocketOption>, Expected> {
    match text {
        "us" | "usec" | "µs" | "μs" => Ok(Some(SocketOption::TimestampingMicroseconds)),
        "ns" | "nsec" => Ok(Some(SocketOption::TimestampingNanoseconds)),
        other => match value::boolean(other) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(SocketOption::TimestampingMicroseconds)),
            Err(_) => Err(Expected::OneOf(&["off", "us", "ns"])),
        },
    }
}

fn type_of_service(text: &str) -> Result<i32, Expected> {
    match text {
        "low-delay" => Ok(0x10),
        "throughput" => Ok(0x08),
        "reliability" => Ok(0x04),
        "low-cost" => Ok(0x02),
        other => value::number(other, -1, 255).map(|n| n as i32).map_err(|_| {
            Expected::Other(
                "a number from 0 to 255, low-delay, throughput, reliability or low-cost",
            )
        }),
    }
}

/// `SocketProtocol=` as socket(2) takes it.
pub(super) fn protocol(text: &str) -> Result<i32, Expected> {
    const NAMES: &[&str] = &["udplite", "sctp", "mptcp"];
    // IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_MPTCP.
    value::one_of(text, NAMES, &[136, 132, 262])
}
