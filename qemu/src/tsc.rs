//! How fast a guest's time stamp counter counts where QEMU translates its instructions.
//!
//! QEMU's translator hands a guest of x86_64 the counter of the host's processor, or, where it knows of
//! none that is easily read, as on aarch64, the host's clock in nanoseconds.
//!
//! The exception to code for no one architecture: Linux has no file that says how fast the counter
//! counts, so that its instruction is the only way. Microvms are told, whose guests are of x86_64.

/// In kHz. On x86_64 it is measured, which takes 20 ms, and right to some 50 in a million.
#[cfg(target_arch = "x86_64")]
pub(crate) use counter::frequency;

/// In kHz: nanoseconds.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn frequency() -> u32 {
    1_000_000
}

#[cfg(target_arch = "x86_64")]
mod counter {
    #![allow(unsafe_code)]

    use std::arch::x86_64::_rdtsc;
    use std::time::{Duration, Instant};

    /// What the counter is compared with the clock for.
    const SAMPLE: Duration = Duration::from_millis(20);
    /// A look that took longer was interrupted.
    const LOOK: Duration = Duration::from_micros(2);
    /// Looks, before an interrupted one will do.
    const LOOKS: usize = 100;

    pub(crate) fn frequency() -> u32 {
        let (began, first) = look();
        std::thread::sleep(SAMPLE);
        let (ended, last) = look();
        let ticks = u128::from(last.wrapping_sub(first)) * 1_000_000;
        u32::try_from(ticks / (ended - began).as_nanos().max(1)).unwrap_or(u32::MAX)
    }

    /// The clock and the counter at about the same moment.
    fn look() -> (Instant, u64) {
        let mut looks = std::iter::repeat_with(|| {
            let before = Instant::now();
            // SAFETY: every processor of x86_64 has the instruction, and it only reads.
            let ticks = unsafe { _rdtsc() };
            (before, ticks, before.elapsed())
        });
        let clean = looks.by_ref().take(LOOKS).find(|(_, _, took)| *took < LOOK);
        let (moment, ticks, _) =
            clean.or_else(|| looks.next()).unwrap_or((Instant::now(), 0, LOOK));
        (moment, ticks)
    }

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (f64::from(frequency()), f64::from(frequency()));
        assert!((one / other - 1.0).abs() < 0.01, "{one} kHz and {other} kHz");
        // 100 MHz to 10 GHz: the slowest and the fastest there have been.
        assert!((1e5..1e7).contains(&one), "{one} kHz");
    }
}
