//! `AddDevice=`

use super::container::Maker;
use crate::finding::Finding;
use crate::units::quoting::Escapes;

/// Devices of every guest.
const ALWAYS: [&str; 10] = [
    "/dev/console",
    "/dev/full",
    "/dev/kmsg",
    "/dev/mem",
    "/dev/null",
    "/dev/ptmx",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// Adds `--device` options. `-` before a path leaves out what is not there, which only the guest
/// can know.
pub(super) fn add(maker: &mut Maker<'_>) {
    for device in maker.lines.words("AddDevice", Escapes::Literal) {
        let Some(path) = device.text.strip_prefix('-') else {
            maker.run.option("--device", &device);
            continue;
        };
        let node = path.split(':').next().unwrap_or_default();
        if ALWAYS.contains(&node) {
            maker.run.option("--device", &device.with(path));
            continue;
        }
        let message = format!("`AddDevice={}` depends on whether there is a {node}", device.text);
        maker.lines.findings.push(
            Finding::error(device.span.clone(), message)
                .label("only the running guest knows")
                .help("take the `-` out if the guest has the device, else the line"),
        );
    }
}
